{{/* Name of the chart, in labels. */}}
{{- define "tfdrift.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Full name of what is made; the parts append theirs, so 55 characters are left for it. */}}
{{- define "tfdrift.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tfdrift.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tfdrift.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Labels that select a part's pods. Takes root and part. */}}
{{- define "tfdrift.selector" -}}
app.kubernetes.io/name: {{ include "tfdrift.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .part }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* All labels. Takes root and part; part is "" for what both parts share. */}}
{{- define "tfdrift.labels" -}}
{{ include "tfdrift.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* One image reference. Takes image and tag, the tag where the image names none. */}}
{{- define "tfdrift.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end }}
{{- end }}

{{/* What every container gets that needs no rights at all. */}}
{{- define "tfdrift.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
The shipped drop-in configuration with this release's places in it, as YAML. Takes root and library, states, trail and
key, which are left out where there is no plugin.
*/}}
{{- define "tfdrift.dropIn" -}}
{{- $config := .root.Files.Get "files/tfdrift.yaml" | fromYaml }}
{{- $intake := printf "http://127.0.0.1:%v/" .root.Values.bridge.intakePort }}
{{- $_ := set $config "http_output" (mergeOverwrite (dict) ($config.http_output | default dict) (dict "enabled" true "url" $intake)) }}
{{- if .plugin }}
{{- $init := dict "states" .plugin.states }}
{{- with .plugin.key }}{{- $_ := set $init "sensitive_key_file" . }}{{- end }}
{{- $_ := set $config "plugins" (list (dict "name" "tfdrift" "library_path" .plugin.library "init_config" $init "open_params" .plugin.trail)) }}
{{- $_ := set $config "load_plugins" (list "tfdrift") }}
{{- else }}
{{- range list "plugins" "load_plugins" "append_output" "rules_files" }}{{- $_ := unset $config . }}{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/*
The bridge: an init container that stays, so that it receives before Falco sends, and outlives it when the pod ends.
Falco drops an alert that finds no listener. Takes root, part (the values) and args, mounts (lists).
*/}}
{{- define "tfdrift.bridge" -}}
{{- $ports := list (int .root.Values.bridge.feedPort) (int .root.Values.bridge.intakePort) 8765 }}
{{- if lt (len (uniq $ports)) 3 }}{{ fail "bridge.feedPort and bridge.intakePort must differ, and neither may be 8765, Falco's own in the same pod" }}{{ end }}
{{- $listen := printf "127.0.0.1:%v" .root.Values.bridge.feedPort -}}
name: bridge
image: {{ include "tfdrift.image" (dict "image" .root.Values.image "tag" .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
restartPolicy: Always
command: [/tfdrift-bridge]
args:
  - run
  - --listen={{ $listen }}
  - --falco-http=127.0.0.1:{{ .root.Values.bridge.intakePort }}
  - --data=/var/lib/tfdrift
  - --retain={{ int64 .part.retain }}
  - --log-format={{ .root.Values.bridge.log.format }}
  - --log-level={{ .root.Values.bridge.log.level }}
  {{- range concat .args .part.bridge.extraArgs }}
  - {{ . | quote }}
  {{- end }}
{{- with .part.bridge.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: feed, containerPort: {{ .root.Values.bridge.feedPort }}, protocol: TCP}
# The feed listens on loopback, out of the kubelet's reach: the probes run inside the container.
startupProbe:
  exec: {command: [/tfdrift-bridge, health, "--listen={{ $listen }}"]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  exec: {command: [/tfdrift-bridge, health, "--listen={{ $listen }}"]}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  exec: {command: [/tfdrift-bridge, health, --ready, "--listen={{ $listen }}"]}
  periodSeconds: 10
  timeoutSeconds: 5
securityContext:
  {{- include "tfdrift.unprivileged" . | nindent 2 }}
  runAsNonRoot: true
  {{- if not .part.podSecurityContext }}
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
  {{- end }}
resources:
  {{- toYaml .part.bridge.resources | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: /var/lib/tfdrift}
  - {name: tmp, mountPath: /tmp}
  {{- range .mounts }}
  - {{ toJson . }}
  {{- end }}
  {{- with .part.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Falco's own probes, answered by its web server. */}}
{{- define "tfdrift.falcoProbes" -}}
ports:
  - {name: falco, containerPort: 8765, protocol: TCP}
startupProbe:
  httpGet: {path: /healthz, port: falco}
  periodSeconds: 5
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /healthz, port: falco}
  periodSeconds: 15
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /healthz, port: falco}
  periodSeconds: 15
  timeoutSeconds: 5
{{- end }}

{{/* Where pods go, the same in both parts. Takes root and part. */}}
{{- define "tfdrift.placement" -}}
serviceAccountName: {{ include "tfdrift.serviceAccountName" .root }}
automountServiceAccountToken: {{ .part.automountServiceAccountToken }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
