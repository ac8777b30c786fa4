{{/* What PostgreSQL calls: the client in its volume, by an absolute path, since Patroni gives it an environment of its own. */}}
{{- define "walbaton.archiveCommand" -}}
/opt/walbaton/walbaton-wal push %p
{{- end }}

{{- define "walbaton.restoreCommand" -}}
/opt/walbaton/walbaton-wal fetch %f %p
{{- end }}

{{/* walbaton.yml. */}}
{{- define "walbaton.config" -}}
{{- $config := dict "patroni_config" "/etc/walbaton/patroni.yml" "listen" (printf ":%v" .Values.sidecar.port) -}}
{{- if .Values.archive.url -}}
{{- $_ := set $config "archive" (dict "url" .Values.archive.url) -}}
{{- else if not .Values.config.archives -}}
{{- fail "\n\nWhere should the WAL go? --set archive.url=s3://bucket/prefix (or file:///folder, sftp://, gcs://, azure://)\n" -}}
{{- end -}}
{{- if .Values.postgres.walVolume.name -}}
{{- $_ := set $config "restore" (dict "prefetch_dir" (printf "%s/walbaton-prefetch" .Values.postgres.walVolume.mountPath)) -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $config (deepCopy .Values.config)) -}}
{{- end }}

{{/* What the sidecar must know of Patroni: which cluster, which DCS, where PostgreSQL is. */}}
{{- define "walbaton.patroniView" -}}
scope: {{ include "walbaton.scope" . }}
restapi:
  listen: 0.0.0.0:8008
  connect_address: 127.0.0.1:8008
{{- if .Values.patroni.dcs }}
{{ toYaml .Values.patroni.dcs }}
{{- else }}
kubernetes:
  namespace: {{ .Release.Namespace }}
  labels:
    {{- toYaml .Values.patroni.kubernetes.labels | nindent 4 }}
  scope_label: {{ .Values.patroni.kubernetes.scopeLabel }}
  role_label: {{ .Values.patroni.kubernetes.roleLabel }}
  leader_label_value: {{ .Values.patroni.kubernetes.leaderLabelValue }}
  standby_leader_label_value: {{ .Values.patroni.kubernetes.leaderLabelValue }}
  use_endpoints: {{ .Values.patroni.kubernetes.useEndpoints }}
  ports:
    - {name: postgresql, port: {{ .Values.postgres.port }}}
{{- end }}
postgresql:
  listen: "*:{{ .Values.postgres.port }}"
  data_dir: {{ .Values.postgres.dataDir }}
  authentication:
    superuser:
      username: {{ .Values.patroni.superuser }}
{{- end }}

{{/* What the chart wants of its own cluster's Patroni, whatever the image. archive_mode is the same on all nodes, so it goes to the DCS; the
commands are about the volumes of this pod. */}}
{{- define "walbaton.patroniWishes" -}}
bootstrap:
  dcs:
    postgresql:
      use_pg_rewind: true
      parameters:
        archive_mode: {{ .Values.patroni.archiveMode | quote }}
        archive_timeout: 300s
        wal_log_hints: "on"
{{- if and .Values.postgres.walVolume.name (eq .Values.patroni.flavor "spilo") }}
  initdb:
    - encoding: UTF8
    - locale: en_US.UTF-8
    - data-checksums
    - waldir: {{ .Values.postgres.walVolume.mountPath }}/pg_wal
{{- end }}
postgresql:
  parameters:
    archive_command: {{ include "walbaton.archiveCommand" . }}
  recovery_conf:
    restore_command: {{ include "walbaton.restoreCommand" . }}
{{- if .Values.postgres.walVolume.name }}
  create_replica_methods: [basebackup]
  basebackup:
    - waldir: {{ .Values.postgres.walVolume.mountPath }}/pg_wal
    - checkpoint: fast
{{- end }}
{{- end }}

{{/* The rest of Patroni's file for an image that brings nothing of its own. */}}
{{- define "walbaton.patroniPlain" -}}
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 33554432
    postgresql:
      use_slots: true
  initdb:
    - encoding: UTF8
    - data-checksums
{{- if .Values.postgres.walVolume.name }}
    - waldir: {{ .Values.postgres.walVolume.mountPath }}/pg_wal
{{- end }}
postgresql:
  pgpass: /tmp/pgpass
  authentication:
    replication:
      username: standby
  parameters:
    unix_socket_directories: /tmp
  pg_hba:
    - local all all trust
    - host all all all md5
    - host replication standby all md5
{{- end }}

{{/* patroni.yml: the whole of it with flavor patroni, which Patroni reads too; else what the sidecar must know. */}}
{{- define "walbaton.patroniFile" -}}
{{- $file := fromYaml (include "walbaton.patroniView" .) -}}
{{- if and .Values.patroni.enabled (eq .Values.patroni.flavor "patroni") -}}
{{- $file = mustMergeOverwrite $file (fromYaml (include "walbaton.patroniPlain" .)) (fromYaml (include "walbaton.patroniWishes" .)) (deepCopy .Values.patroni.config) -}}
{{- end -}}
{{- toYaml $file -}}
{{- end }}

{{/* SPILO_CONFIGURATION, which Spilo merges over its own. */}}
{{- define "walbaton.spiloFile" -}}
{{- $file := mustMergeOverwrite (fromYaml (include "walbaton.patroniWishes" .)) (deepCopy .Values.patroni.dcs) (deepCopy .Values.patroni.config) -}}
{{- toYaml $file -}}
{{- end }}
