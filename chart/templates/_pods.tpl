{{/* What all pods have in common. Called with (dict "root" . "component" …). */}}

{{- define "dormouse.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .Values.podSecurity.fsGroup }}
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "dormouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{/* Where pods may run. */}}
{{- define "dormouse.placement" -}}
{{- $own := default (dict) (index .root.Values .component) -}}
{{- with coalesce $own.nodeSelector .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with coalesce $own.tolerations .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with coalesce $own.affinity .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with coalesce $own.priorityClassName .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "dormouse.spread" -}}
{{- $own := index .root.Values .component -}}
{{- if $own.topologySpreadConstraints -}}
{{- toYaml $own.topologySpreadConstraints -}}
{{- else -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "dormouse.selectorLabels" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end -}}
{{- end -}}

{{- define "dormouse.probe" -}}
httpGet: { path: {{ .path }}, port: admin }
{{- range $key, $value := .settings }}
{{ $key }}: {{ int64 $value }}
{{- end }}
{{- end -}}

{{/* How pods are replaced. A new one first, and only then an old one goes: the Services of sleeping workloads always list as many as before. */}}
{{- define "dormouse.strategy" -}}
{{- $own := index .root.Values .component -}}
{{- with $own.strategy -}}
{{- toYaml . -}}
{{- else -}}
type: RollingUpdate
rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
{{- end -}}
{{- end -}}

{{/* How many pods may be away, or must stay. */}}
{{- define "dormouse.disruption" -}}
{{- $budget := (index .root.Values .component).podDisruptionBudget -}}
{{- if kindIs "invalid" $budget.minAvailable -}}
maxUnavailable: {{ $budget.maxUnavailable }}
{{- else -}}
minAvailable: {{ $budget.minAvailable }}
{{- end -}}
{{- end -}}

{{/* A Deployment's pod template: the two processes differ in their subcommand and their ports. */}}
{{- define "dormouse.podTemplate" -}}
{{- $root := .root -}}
{{- $own := index $root.Values .component -}}
metadata:
  labels:
    {{- include "dormouse.labels" (dict "root" $root "component" .component "labels" $own.podLabels) | nindent 4 }}
  annotations:
    dormouse.dev/config-checksum: {{ include "dormouse.config" $root | sha256sum }}
    dormouse.dev/plugins-checksum: {{ include "dormouse.pluginChecksum" $root }}
    {{- with $own.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "dormouse.serviceAccountName" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  securityContext:
    {{- include "dormouse.podSecurity" $root | nindent 4 }}
  topologySpreadConstraints:
    {{- include "dormouse.spread" . | trim | nindent 4 }}
  {{- include "dormouse.placement" . | nindent 2 }}
  {{- with $root.Values.plugins.initContainers }}
  initContainers:
    {{- range . }}
    - name: {{ .name }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ default "IfNotPresent" .imagePullPolicy }}
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      {{- with .args }}
      args: {{ toJson . }}
      {{- end }}
      {{- with .env }}
      env: {{ toJson . }}
      {{- end }}
      securityContext:
        {{- include "dormouse.containerSecurity" $root | nindent 8 }}
      resources:
        {{- toYaml (default $own.resources .resources) | nindent 8 }}
      volumeMounts:
        - { name: plugins-copied, mountPath: /plugins }
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "dormouse.image" . | quote }}
      imagePullPolicy: {{ (include "dormouse.imageValues" . | fromYaml).pullPolicy }}
      args:
        - {{ .component }}
        - --config=/etc/dormouse/config/dormouse.yaml
        {{- range $own.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: POD_NAME
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
        {{- with $own.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $own.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $name, $port := .ports }}
        - { name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP }
        {{- end }}
      startupProbe:
        {{- include "dormouse.probe" (dict "path" "/healthz" "settings" $own.probes.startup) | nindent 8 }}
      readinessProbe:
        {{- include "dormouse.probe" (dict "path" "/readyz" "settings" $own.probes.readiness) | nindent 8 }}
      livenessProbe:
        {{- include "dormouse.probe" (dict "path" "/healthz" "settings" $own.probes.liveness) | nindent 8 }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      securityContext:
        {{- include "dormouse.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/dormouse/config, readOnly: true }
        {{- include "dormouse.pluginMounts" $root | nindent 8 }}
        {{- with $root.Values.config.common.pluginsCacheDir }}
        - { name: plugins-compiled, mountPath: {{ . | quote }} }
        {{- end }}
        {{- with $own.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "dormouse.fullname" $root }}-config }
    {{- include "dormouse.pluginVolumes" $root | nindent 4 }}
    {{- if $root.Values.config.common.pluginsCacheDir }}
    # As much as the cache holds by itself, and the one that is being written.
    - name: plugins-compiled
      emptyDir: { sizeLimit: 768Mi }
    {{- end }}
    {{- with $own.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
