{{/* Where plugins are found, first come first. */}}
{{- define "dormouse.pluginPlaces" -}}
{{- range .Values.plugins.bundled }}
- {{ if eq . "*" }}/plugins{{ else }}/plugins/{{ . }}.wasm{{ end }}
{{- end }}
{{- range .Values.plugins.configMaps }}
- /etc/dormouse/plugins/configmap-{{ . }}
{{- end }}
{{- if .Values.plugins.persistentVolumeClaim.claimName }}
- /etc/dormouse/plugins/volume
{{- end }}
{{- range $index, $image := .Values.plugins.images }}
- /etc/dormouse/plugins/image-{{ $index }}
{{- end }}
{{- if .Values.plugins.initContainers }}
- /etc/dormouse/plugins/copied
{{- end }}
{{- end -}}

{{- define "dormouse.pluginMounts" -}}
{{- range .Values.plugins.configMaps }}
- { name: plugins-configmap-{{ . }}, mountPath: /etc/dormouse/plugins/configmap-{{ . }}, readOnly: true }
{{- end }}
{{- with .Values.plugins.persistentVolumeClaim }}
{{- if .claimName }}
- name: plugins-volume
  mountPath: /etc/dormouse/plugins/volume
  readOnly: true
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- range $index, $image := .Values.plugins.images }}
- name: plugins-image-{{ $index }}
  mountPath: /etc/dormouse/plugins/image-{{ $index }}
  readOnly: true
  {{- with $image.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- if .Values.plugins.initContainers }}
- { name: plugins-copied, mountPath: /etc/dormouse/plugins/copied, readOnly: true }
{{- end }}
{{- end -}}

{{- define "dormouse.pluginVolumes" -}}
{{- range .Values.plugins.configMaps }}
- name: plugins-configmap-{{ . }}
  configMap: { name: {{ . }} }
{{- end }}
{{- with .Values.plugins.persistentVolumeClaim.claimName }}
- name: plugins-volume
  persistentVolumeClaim: { claimName: {{ . }}, readOnly: true }
{{- end }}
{{- if .Values.plugins.images }}
{{- if not (semverCompare ">=1.35.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "plugins.images needs Kubernetes 1.35 or newer, and this cluster is %s; use plugins.initContainers" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
{{- range $index, $image := .Values.plugins.images }}
- name: plugins-image-{{ $index }}
  image:
    reference: {{ $image.reference | quote }}
    pullPolicy: {{ default "IfNotPresent" $image.pullPolicy }}
{{- end }}
{{- if .Values.plugins.initContainers }}
- name: plugins-copied
  emptyDir: { sizeLimit: 256Mi }
{{- end }}
{{- end -}}

{{/* What the plugin ConfigMaps hold, as far as Helm may look: `helm upgrade` rolls the pods when it has changed. */}}
{{- define "dormouse.pluginChecksum" -}}
{{- $all := list -}}
{{- range .Values.plugins.configMaps -}}
{{- $found := lookup "v1" "ConfigMap" $.Release.Namespace . -}}
{{- $all = append $all (list . (default (dict) $found.binaryData)) -}}
{{- end -}}
{{- $all | toJson | sha256sum -}}
{{- end -}}
