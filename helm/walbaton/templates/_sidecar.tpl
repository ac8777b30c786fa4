{{/*
What a chart of your own includes into its StatefulSet; helm/examples/own-chart does. With this chart as a dependency named walbaton:

  initContainers:
    {{- include "walbaton.initContainers" .Subcharts.walbaton | nindent 8 }}
  containers:
    - name: postgres
      volumeMounts:
        {{- include "walbaton.clientMounts" .Subcharts.walbaton | nindent 12 }}
    {{- include "walbaton.containers" .Subcharts.walbaton | nindent 8 }}
  volumes:
    {{- include "walbaton.volumes" .Subcharts.walbaton | nindent 8 }}

"walbaton.archiveCommand" and "walbaton.restoreCommand" are for Patroni's configuration.
*/}}

{{/* Copies walbaton-wal to where PostgreSQL's container finds it. */}}
{{- define "walbaton.clientContainer" -}}
name: walbaton-client
image: {{ include "walbaton.clientImage" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [install, /opt/walbaton]
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {memory: 64Mi}
securityContext:
  {{- include "walbaton.securityContext" . | nindent 2 }}
volumeMounts:
  - name: walbaton-client
    mountPath: /opt/walbaton
{{- end }}

{{/* The sidecar's container. */}}
{{- define "walbaton.container" -}}
name: walbaton
image: {{ include "walbaton.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - sidecar
  {{- with .Values.sidecar.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- include "walbaton.env" . | nindent 2 }}
  {{- if .Values.patroni.enabled }}
  - name: PATRONI_SUPERUSER_PASSWORD
    valueFrom:
      secretKeyRef:
        name: {{ include "walbaton.passwords" . }}
        key: superuser-password
  {{- end }}
  {{- with .Values.sidecar.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $from := .Values.sidecar.extraEnvFrom }}
{{- with .Values.archive.existingSecret }}
{{- $from = prepend $from (dict "secretRef" (dict "name" .)) }}
{{- end }}
{{- with $from }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: walbaton
    containerPort: {{ .Values.sidecar.port }}
livenessProbe:
  httpGet: {path: /livez, port: walbaton{{ if include "walbaton.https" . }}, scheme: HTTPS{{ end }}}
  {{- toYaml .Values.sidecar.livenessProbe | nindent 2 }}
{{- with .Values.sidecar.startupProbe }}
startupProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.sidecar.readinessProbe }}
readinessProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext:
  {{- include "walbaton.securityContext" . | nindent 2 }}
volumeMounts:
  - name: {{ .Values.postgres.volume.name }}
    mountPath: {{ .Values.postgres.volume.mountPath }}
  {{- if .Values.postgres.walVolume.name }}
  - name: {{ .Values.postgres.walVolume.name }}
    mountPath: {{ .Values.postgres.walVolume.mountPath }}
  {{- end }}
  - name: walbaton-run
    mountPath: /run/walbaton
  - name: walbaton-config
    mountPath: /etc/walbaton
    readOnly: true
  {{- if .Values.archive.secretFiles }}
  - name: walbaton-secrets
    mountPath: /etc/walbaton/secrets
    readOnly: true
  {{- end }}
  {{- with .Values.sidecar.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The member's name is the pod's, as for Patroni. What is too large for memory is put together in the one folder that can be written. */}}
{{- define "walbaton.env" -}}
- name: WALBATON_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: TMPDIR
  value: /run/walbaton
{{- end }}

{{- define "walbaton.securityContext" -}}
{{- $ours := dict
  "runAsUser" (int .Values.postgres.uid)
  "runAsGroup" (int .Values.postgres.gid)
  "runAsNonRoot" true
  "readOnlyRootFilesystem" true
  "allowPrivilegeEscalation" false
  "capabilities" (dict "drop" (list "ALL"))
  "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mustMergeOverwrite $ours (deepCopy .Values.sidecar.securityContext)) -}}
{{- end }}

{{/* The sidecar as an init container that goes on running, until after PostgreSQL has ended. */}}
{{- define "walbaton.nativeSidecar" -}}
{{ include "walbaton.container" . }}
restartPolicy: Always
{{- end }}

{{/* A list for the pod's initContainers: the client, and the sidecar where it is a native one. */}}
{{- define "walbaton.initContainers" -}}
- {{ include "walbaton.clientContainer" . | nindent 2 | trim }}
{{- if include "walbaton.native" . }}
- {{ include "walbaton.nativeSidecar" . | nindent 2 | trim }}
{{- end }}
{{- end }}

{{/* A list for the pod's containers: the sidecar where it is no native one, else nothing. */}}
{{- define "walbaton.containers" -}}
{{- if not (include "walbaton.native" .) -}}
- {{ include "walbaton.container" . | nindent 2 | trim }}
{{- end -}}
{{- end }}

{{/* Mounts of PostgreSQL's container. */}}
{{- define "walbaton.clientMounts" -}}
- name: walbaton-client
  mountPath: /opt/walbaton
  readOnly: true
- name: walbaton-run
  mountPath: /run/walbaton
{{- end }}

{{/* The pod's volumes. */}}
{{- define "walbaton.volumes" -}}
- name: walbaton-client
  emptyDir: {sizeLimit: 64Mi}
- name: walbaton-run
  emptyDir: {}
- name: walbaton-config
  configMap:
    name: {{ include "walbaton.fullname" . }}
{{- with .Values.archive.secretFiles }}
- name: walbaton-secrets
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the sidecar may do: the rules of docs/dcs.md. */}}
{{- define "walbaton.rules" -}}
- apiGroups: [""]
  resources: [pods, {{ ternary "endpoints" "configmaps" .Values.patroni.kubernetes.useEndpoints }}]
  verbs: [list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch, create, update]
{{- end }}

{{/* What Patroni itself does, from 3.0 to 4.1 (patroni/dcs/kubernetes.py), but for "patronictl remove". */}}
{{- define "walbaton.patroniRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch, watch]
- apiGroups: [""]
  resources: [{{ ternary "endpoints" "configmaps" .Values.patroni.kubernetes.useEndpoints }}]
  verbs: [create, get, list, patch, watch]
{{- end }}
