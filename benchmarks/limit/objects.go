package main

import (
	_ "embed"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const label = "honeyframe.io/credentials"

var (
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	secrets    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	connectors = schema.GroupVersionResource{Group: "honeyframe.io", Version: "v1beta1", Resource: "connectors"}
)

// statusTemplate is what the operator writes of such a Connector, field by field: a smaller status would be cheaper
// for the API server, and the comparison unfair.
//
//go:embed status.json
var statusTemplate string

func name(i int) string {
	return fmt.Sprintf("hook-%05d", i)
}

func namespace(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Namespace",
		"metadata":   map[string]any{"name": name},
	}}
}

func secret(i int) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Secret",
		"metadata":   map[string]any{"name": name(i), "labels": map[string]any{label: "true"}},
		"stringData": map[string]any{"bearer_token": fmt.Sprintf("a-token-of-the-usual-length-%05d", i)},
	}}
}

func connector(i int, url string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "honeyframe.io/v1beta1",
		"kind":       "Connector",
		"metadata":   map[string]any{"name": name(i)},
		"spec": map[string]any{
			"config":    map[string]any{"webhook": map[string]any{"url": url}},
			"secretRef": map[string]any{"name": name(i)},
			"interval":  "30s",
		},
	}}
}

func statusPatch(i int, now time.Time) []byte {
	fill := strings.NewReplacer(
		`"NOW"`, `"`+now.UTC().Format(time.RFC3339)+`"`,
		`"ID"`, fmt.Sprintf(`"00000000-0000-4000-8000-%012d"`, i),
	)
	return []byte(`{"status":` + fill.Replace(statusTemplate) + `}`)
}
