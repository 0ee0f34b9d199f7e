{{/*
What each process says to the API server, and nothing else: a test on a real cluster compares these rules with the audit log, in
both directions. Called with (dict "root" . "role" "autoscaler" | "dlx" | "restore").
*/}}
{{- define "dormouse.rules" -}}
{{- $role := .role -}}
# Sleepers: the autoscaler declares and retires them; everybody moves them on by their status.
- apiGroups: [dormouse.dev]
  resources: [sleepers]
  {{- if eq $role "autoscaler" }}
  verbs: [get, list, watch, create, update, patch, delete]
  {{- else if eq $role "dlx" }}
  verbs: [get, list, watch]
  {{- else }}
  verbs: [get, list, watch, patch, delete]
  {{- end }}
- apiGroups: [dormouse.dev]
  resources: [sleepers/status]
  verbs: [update]
# Traffic: selectors are parked and restored, and Dormouse's own slices come and go. One that somebody has damaged is written anew,
# by whoever carries the next step out.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, update, delete]
# Where a resource's requests go, and whether it is ready.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- if eq $role "dlx" }}
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [list, watch]
{{- end }}
# Workloads: scaled by their scale subresource; an annotation on them fences late writes. Plugins list them, and a watch keeps the list.
{{- range .root.Values.rbac.workloads }}
- apiGroups: [{{ .apiGroup | quote }}]
  resources: {{ toJson .resources }}
  verbs: [get, {{ if eq $role "autoscaler" }}list, watch, {{ end }}patch]
- apiGroups: [{{ .apiGroup | quote }}]
  resources:
    {{- range .resources }}
    - {{ . }}/scale
    {{- end }}
  verbs: [get, update]
{{- end }}
# A wake restores at least what the workload's HPA asks for.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- if and (eq $role "autoscaler") .root.Values.config.autoscaler.memhpa }}
# MemHpas: what became of them is written into their status.
- apiGroups: [xinhuang.com]
  resources: [memhpas]
  verbs: [get, list, watch]
- apiGroups: [xinhuang.com]
  resources: [memhpas/status]
  verbs: [patch]
{{- end }}
{{- if eq $role "autoscaler" }}
{{- with .root.Values.rbac.metrics.custom }}
- apiGroups: [custom.metrics.k8s.io]
  resources: {{ toJson . }}
  verbs: [get]
{{- end }}
{{- with .root.Values.rbac.metrics.external }}
- apiGroups: [external.metrics.k8s.io]
  resources: {{ toJson . }}
  verbs: [list]
{{- end }}
{{- if .root.Values.rbac.metrics.resource }}
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
{{- end }}
{{- end }}
{{- if ne $role "restore" }}
{{- with .root.Values.rbac.extraRules }}
# rbac.extraRules
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A role and its binding. Called with root, name, namespace ("*": for the cluster), account, rules, labels and hook. */}}
{{- define "dormouse.role" -}}
{{- $cluster := eq .namespace "*" -}}
{{- $hook := default "" .hook -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRole" "Role" $cluster }}
metadata:
  name: {{ .name }}
  {{- if not $cluster }}
  namespace: {{ .namespace }}
  {{- end }}
  labels:
    {{- include "dormouse.labels" . | nindent 4 }}
  {{- with include "dormouse.annotations" (dict "root" .root "more" (ternary (dict) (include "dormouse.hook" (dict "hook" $hook "weight" -10) | fromYaml) (eq $hook ""))) }}
  {{- . | nindent 2 }}
  {{- end }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRoleBinding" "RoleBinding" $cluster }}
metadata:
  name: {{ .name }}
  {{- if not $cluster }}
  namespace: {{ .namespace }}
  {{- end }}
  labels:
    {{- include "dormouse.labels" . | nindent 4 }}
  {{- with include "dormouse.annotations" (dict "root" .root "more" (ternary (dict) (include "dormouse.hook" (dict "hook" $hook "weight" -5) | fromYaml) (eq $hook ""))) }}
  {{- . | nindent 2 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "ClusterRole" "Role" $cluster }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{/* Annotations of a hook: what it needs comes first and goes last. */}}
{{- define "dormouse.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* All roles of one process. */}}
{{- define "dormouse.roles" -}}
{{- $root := .root -}}
{{- $scope := include "dormouse.scope" $root -}}
{{- $name := printf "%s-%s" (include "dormouse.fullname" $root) .component -}}
{{- $base := dict "root" $root "component" .component "account" .account "hook" .hook -}}
{{ include "dormouse.role" (merge (dict "name" $name "namespace" $scope "rules" (include "dormouse.rules" (dict "root" $root "role" .component))) $base) }}
{{- $dlx := splitList "/" (include "dormouse.dlxService" $root) }}
{{- if and (ne $scope "*") (ne $scope (index $dlx 0)) }}
---
# The DLX's own Service is outside of the namespace that is looked after.
{{ include "dormouse.role" (merge (dict "name" (printf "%s-service" $name) "namespace" (index $dlx 0) "rules" (include "dormouse.serviceRules" .)) $base) }}
{{- end }}
{{- if ne .component "dlx" }}
{{- $lease := splitList "/" (include "dormouse.lease" $root) }}
---
{{ include "dormouse.role" (merge (dict "name" (printf "%s-lease" $name) "namespace" (index $lease 0) "rules" (include "dormouse.leaseRules" $root)) $base) }}
{{- end }}
{{- end -}}

{{- define "dormouse.serviceRules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end -}}

{{- define "dormouse.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: {{ include "dormouse.leaseNames" . }}
  verbs: [get, update]
{{- end -}}
