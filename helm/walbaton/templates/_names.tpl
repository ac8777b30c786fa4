{{/* Names and labels. Every template takes the chart's own context: "." here, .Subcharts.walbaton in a chart that depends on this one. */}}

{{- define "walbaton.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "walbaton.fullname" -}}
{{- $name := include "walbaton.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Labels of all objects but the pods of the cluster. Never Patroni's: it takes a pod that has them for a member. */}}
{{- define "walbaton.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "walbaton.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "walbaton.scope" -}}
{{- if .Values.patroni.scope -}}
{{ .Values.patroni.scope }}
{{- else if .Values.zalando.enabled -}}
{{ .Values.zalando.cluster }}
{{- else -}}
{{ .Release.Name }}
{{- end -}}
{{- end }}

{{/* What Patroni finds its members by, and so do our selectors. */}}
{{- define "walbaton.memberLabels" -}}
{{- with .Values.patroni.kubernetes.labels -}}
{{ toYaml . }}
{{ end -}}
{{ .Values.patroni.kubernetes.scopeLabel }}: {{ include "walbaton.scope" . }}
{{- end }}

{{- define "walbaton.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{ .Values.serviceAccount.name }}
{{- else if .Values.patroni.enabled -}}
{{ include "walbaton.scope" . }}
{{- else if .Values.zalando.enabled -}}
postgres-pod
{{- else -}}
{{ include "walbaton.fullname" . }}
{{- end -}}
{{- end }}

{{/* The Secret with the passwords of the chart's own cluster. */}}
{{- define "walbaton.passwords" -}}
{{ .Values.patroni.existingSecret | default (printf "%s-passwords" (include "walbaton.scope" .)) }}
{{- end }}

{{- define "walbaton.image" -}}
{{- include "walbaton.imageOf" (list . .Values.image.repository .Values.image.digest) -}}
{{- end }}

{{- define "walbaton.clientImage" -}}
{{- include "walbaton.imageOf" (list . .Values.image.client.repository .Values.image.client.digest) -}}
{{- end }}

{{- define "walbaton.imageOf" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end -}}
{{- index . 1 -}}
{{- if index . 2 }}@{{ index . 2 }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* Whether the sidecar's web server has a certificate: "true" or nothing. */}}
{{- define "walbaton.https" -}}
{{- if dig "web" "cert" "" .Values.config }}true{{ end -}}
{{- end }}

{{/* Whether the sidecar is a native one: "true" or nothing. */}}
{{- define "walbaton.native" -}}
{{- $native := toString .Values.sidecar.native -}}
{{- if or (eq $native "true") (and (eq $native "auto") (semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end }}
