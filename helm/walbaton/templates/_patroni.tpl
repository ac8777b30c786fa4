{{/* Spilo's own variables; it makes Patroni's file of them and of SPILO_CONFIGURATION. */}}
{{- define "walbaton.spiloEnv" -}}
- name: SCOPE
  value: {{ include "walbaton.scope" . }}
- name: PGROOT
  value: {{ dir .Values.postgres.dataDir }}
- name: PGPORT
  value: {{ .Values.postgres.port | quote }}
{{- if not .Values.patroni.dcs }}
- name: DCS_ENABLE_KUBERNETES_API
  value: "true"
{{- if not .Values.patroni.kubernetes.useEndpoints }}
- name: KUBERNETES_USE_CONFIGMAPS
  value: "true"
{{- end }}
- name: KUBERNETES_SCOPE_LABEL
  value: {{ .Values.patroni.kubernetes.scopeLabel }}
- name: KUBERNETES_ROLE_LABEL
  value: {{ .Values.patroni.kubernetes.roleLabel }}
- name: KUBERNETES_LEADER_LABEL_VALUE
  value: {{ .Values.patroni.kubernetes.leaderLabelValue }}
- name: KUBERNETES_STANDBY_LEADER_LABEL_VALUE
  value: {{ .Values.patroni.kubernetes.leaderLabelValue }}
- name: KUBERNETES_LABELS
  value: {{ toJson .Values.patroni.kubernetes.labels | quote }}
{{- end }}
- name: PGUSER_SUPERUSER
  value: {{ .Values.patroni.superuser }}
- name: PGPASSWORD_SUPERUSER
  valueFrom:
    secretKeyRef: {name: {{ include "walbaton.passwords" . }}, key: superuser-password}
- name: PGUSER_STANDBY
  value: standby
- name: PGPASSWORD_STANDBY
  valueFrom:
    secretKeyRef: {name: {{ include "walbaton.passwords" . }}, key: replication-password}
- name: SPILO_CONFIGURATION
  valueFrom:
    configMapKeyRef: {name: {{ include "walbaton.fullname" . }}, key: spilo.yml}
{{- end }}

{{/* What differs from pod to pod, and the passwords; the rest is in the file. */}}
{{- define "walbaton.patroniEnv" -}}
- name: PATRONI_NAME
  value: $(POD_NAME)
- name: PATRONI_POSTGRESQL_CONNECT_ADDRESS
  value: $(POD_IP):{{ .Values.postgres.port }}
- name: PATRONI_RESTAPI_CONNECT_ADDRESS
  value: $(POD_IP):8008
{{- if not .Values.patroni.dcs }}
- name: PATRONI_KUBERNETES_POD_IP
  value: $(POD_IP)
{{- end }}
- name: PATRONI_SUPERUSER_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "walbaton.passwords" . }}, key: superuser-password}
- name: PATRONI_REPLICATION_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "walbaton.passwords" . }}, key: replication-password}
{{- end }}
