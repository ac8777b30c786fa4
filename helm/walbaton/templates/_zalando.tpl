{{/*
The part of the operator's manifest that adds the sidecar. Its type Sidecar has name, image, ports, env, command and resources, and no
mounts, no probes and no security context: additionalVolumes brings the mounts, and the pod's user comes from spiloRunAsUser.
The operator gives every sidecar the data volume, POD_NAME, POSTGRES_USER and POSTGRES_PASSWORD.
*/}}
{{- define "walbaton.zalandoPatch" -}}
{{- $requests := .Values.sidecar.resources.requests | default dict -}}
{{- $limits := .Values.sidecar.resources.limits | default dict -}}
spec:
  spiloRunAsUser: {{ .Values.postgres.uid }}
  spiloRunAsGroup: {{ .Values.postgres.gid }}
  spiloFSGroup: {{ .Values.postgres.gid }}
  postgresql:
    parameters:
      archive_mode: {{ .Values.patroni.archiveMode | quote }}
      archive_command: {{ include "walbaton.archiveCommand" . }}
      restore_command: {{ include "walbaton.restoreCommand" . }}
  additionalVolumes:
    - name: walbaton-client
      mountPath: /opt/walbaton
      targetContainers: [postgres]
      volumeSource:
        emptyDir: {sizeLimit: 64Mi}
    - name: walbaton-run
      mountPath: /run/walbaton
      targetContainers: [postgres, walbaton]
      volumeSource:
        emptyDir: {}
    - name: walbaton-config
      mountPath: /etc/walbaton
      targetContainers: [walbaton]
      volumeSource:
        configMap:
          name: {{ include "walbaton.fullname" . }}
    {{- with .Values.archive.secretFiles }}
    - name: walbaton-secrets
      mountPath: /etc/walbaton/secrets
      targetContainers: [walbaton]
      volumeSource:
        secret:
          secretName: {{ . }}
          defaultMode: 0440
    {{- end }}
  initContainers:
    - {{ include "walbaton.clientContainer" . | nindent 6 | trim }}
  sidecars:
    - name: walbaton
      image: {{ include "walbaton.image" . }}
      command: [/usr/local/bin/walbaton, sidecar]
      ports:
        - name: walbaton
          containerPort: {{ .Values.sidecar.port }}
          protocol: TCP
      env:
        {{- include "walbaton.env" . | nindent 8 }}
        - name: PATRONI_SUPERUSER_USERNAME
          value: $(POSTGRES_USER)
        - name: PATRONI_SUPERUSER_PASSWORD
          value: $(POSTGRES_PASSWORD)
        {{- with .Values.sidecar.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        requests:
          cpu: {{ $requests.cpu | default "50m" }}
          memory: {{ $requests.memory | default "128Mi" }}
        limits:
          cpu: {{ $limits.cpu | default "1" | quote }}
          memory: {{ $limits.memory | default "512Mi" }}
{{- end }}
