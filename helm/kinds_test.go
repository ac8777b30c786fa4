//go:build servers

package helm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// podMonitor and prometheusRule are the fields that the chart uses of the Prometheus operator's types, as its API reference
// (monitoring.coreos.com/v1) documents them.
type podMonitor struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       struct {
		Selector            selector `yaml:"selector"`
		PodTargetLabels     []string `yaml:"podTargetLabels"`
		PodMetricsEndpoints []struct {
			Port          string `yaml:"port"`
			Path          string `yaml:"path"`
			Interval      string `yaml:"interval"`
			ScrapeTimeout string `yaml:"scrapeTimeout"`
			Scheme        string `yaml:"scheme"`
			BasicAuth     struct {
				Username secretKey `yaml:"username"`
				Password secretKey `yaml:"password"`
			} `yaml:"basicAuth"`
			TLSConfig struct {
				ServerName string `yaml:"serverName"`
				CA         struct {
					Secret secretKey `yaml:"secret"`
				} `yaml:"ca"`
			} `yaml:"tlsConfig"`
		} `yaml:"podMetricsEndpoints"`
	} `yaml:"spec"`
}

type prometheusRule struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       struct {
		Groups []struct {
			Name     string `yaml:"name"`
			Interval string `yaml:"interval"`
			Rules    []struct {
				Alert         string            `yaml:"alert"`
				Record        string            `yaml:"record"`
				Expr          string            `yaml:"expr"`
				For           string            `yaml:"for"`
				KeepFiringFor string            `yaml:"keep_firing_for"`
				Labels        map[string]string `yaml:"labels"`
				Annotations   map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	} `yaml:"spec"`
}

type secretKey struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

type metadata struct {
	Name      string            `yaml:"name"`
	Namespace string            `yaml:"namespace"`
	Labels    map[string]string `yaml:"labels"`
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

// zalandoPatch is what the chart sets of a manifest of the Zalando operator, as its cluster manifest reference and
// pkg/apis/acid.zalan.do/v1/postgresql_type.go have it. A sidecar knows no other fields than these.
type zalandoPatch struct {
	Spec struct {
		SpiloRunAsUser  int64 `yaml:"spiloRunAsUser"`
		SpiloRunAsGroup int64 `yaml:"spiloRunAsGroup"`
		SpiloFSGroup    int64 `yaml:"spiloFSGroup"`
		PostgreSQL      struct {
			Version    string            `yaml:"version"`
			Parameters map[string]string `yaml:"parameters"`
		} `yaml:"postgresql"`
		AdditionalVolumes []struct {
			Name             string    `yaml:"name"`
			MountPath        string    `yaml:"mountPath"`
			SubPath          string    `yaml:"subPath"`
			TargetContainers []string  `yaml:"targetContainers"`
			VolumeSource     yaml.Node `yaml:"volumeSource"` // corev1.VolumeSource
		} `yaml:"additionalVolumes"`
		InitContainers []yaml.Node `yaml:"initContainers"` // corev1.Container
		Sidecars       []struct {
			Name      string      `yaml:"name"`
			Image     string      `yaml:"image"`
			Ports     []yaml.Node `yaml:"ports"` // corev1.ContainerPort
			Env       []yaml.Node `yaml:"env"`   // corev1.EnvVar
			Command   []string    `yaml:"command"`
			Resources struct {
				Requests zalandoResources `yaml:"requests"`
				Limits   zalandoResources `yaml:"limits"`
			} `yaml:"resources"`
		} `yaml:"sidecars"`
	} `yaml:"spec"`
}

type zalandoResources struct {
	CPU    string `yaml:"cpu"`
	Memory string `yaml:"memory"`
}

// strictly decodes YAML into a type that has yaml tags; an unknown key is an error.
func strictly(text string, into any) error {
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	return d.Decode(into)
}

// decoder decodes objects of Kubernetes: an unknown key, one in the wrong case and one that comes twice are errors.
func decoder(t *testing.T) runtime.Decoder {
	t.Helper()
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(types); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(types, serializer.EnableStrict).UniversalDeserializer()
}

// objects decodes what the chart renders. What is of no known type fails the test.
func objects(t *testing.T, manifest string) []any {
	t.Helper()
	d := decoder(t)
	var all []any
	for i, text := range documents(t, manifest) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(text), &head); err != nil {
			t.Fatalf("document %d: %v\n%s", i, err, text)
		}
		var object any
		var err error
		switch head.Kind {
		case "PodMonitor":
			object = &podMonitor{}
			err = strictly(text, object)
		case "PrometheusRule":
			object = &prometheusRule{}
			err = strictly(text, object)
		default:
			object, _, err = d.Decode([]byte(text), nil, nil)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, numbered(text))
			continue
		}
		all = append(all, object)
	}
	return all
}

// documents splits YAML, and leaves out those that hold nothing but comments.
func documents(t *testing.T, manifest string) []string {
	t.Helper()
	var all []string
	for text := range strings.SplitSeq("\n"+manifest, "\n---") {
		var content any
		if err := yaml.Unmarshal([]byte(text), &content); err != nil {
			t.Fatalf("%v\n%s", err, numbered(text))
		}
		if content != nil {
			all = append(all, text)
		}
	}
	return all
}

func numbered(text string) string {
	var b bytes.Buffer
	n := 0
	for line := range strings.Lines(text) {
		n++
		fmt.Fprintf(&b, "%3d %s", n, line)
	}
	return b.String()
}

// one gives the object of a type, and which of them if there are several.
func one[T any](t *testing.T, all []any, which func(*T) bool) *T {
	t.Helper()
	for _, o := range all {
		if o, ok := o.(*T); ok && (which == nil || which(o)) {
			return o
		}
	}
	t.Fatalf("no %T among %d objects", new(T), len(all))
	return nil
}
