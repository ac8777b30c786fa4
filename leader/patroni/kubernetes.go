package patroni

import "strconv"

// Kubernetes is the section "kubernetes" (patroni/dcs/kubernetes.py of 2.1 to 4.1). Defaults are
// Patroni's; those of the role's labels changed with its versions and are not given here.
//
// A namespace at the top level of the configuration wins over the section's (get_dcs in
// patroni/dcs/__init__.py copies it), although for all other DCS it is a path.
type Kubernetes struct {
	Namespace          string            // of the objects and Pods; default "default", also inside a Pod
	Context            string            // of the kubeconfig outside a Pod; default "kind-kind"
	CACert             string            // inside a Pod, in the place of the mounted one
	Labels             map[string]string // of all objects and Pods, besides ScopeLabel
	ScopeLabel         string            // has the scope as its value; default "cluster-name"
	UseEndpoints       bool              // Endpoints instead of ConfigMaps
	PodIP              string            // what the leader's Endpoints show; default is the Pod's
	Ports              []KubernetesPort  // the same; default one of 5432
	BypassAPIService   bool              // Patroni asks the API servers one by one
	RetriableHTTPCodes []int             // besides 500, 503 and 504

	RoleLabel               string            // that Patroni writes on its Pod; default "role"
	LeaderLabelValue        string            // since 3.1; default "master" up to 3.3, then "primary"
	FollowerLabelValue      string            // since 3.1; default "replica"
	StandbyLeaderLabelValue string            // since 3.1; default like the leader's
	TmpRoleLabel            string            // since 3.1
	BootstrapLabels         map[string]string // since 4.1
}

// KubernetesPort is one port of the leader's Endpoints.
type KubernetesPort struct {
	Name     string
	Port     int // default 5432
	Protocol string
}

func kubernetesOf(s section) Kubernetes {
	k := Kubernetes{
		Namespace:               s.text("namespace"),
		Context:                 s.text("context"),
		CACert:                  s.text("cacert"),
		Labels:                  s.texts("labels"),
		ScopeLabel:              s.text("scope_label"),
		UseEndpoints:            s.boolean("use_endpoints"),
		PodIP:                   s.text("pod_ip"),
		BypassAPIService:        s.boolean("bypass_api_service"),
		RoleLabel:               s.text("role_label"),
		LeaderLabelValue:        s.text("leader_label_value"),
		FollowerLabelValue:      s.text("follower_label_value"),
		StandbyLeaderLabelValue: s.text("standby_leader_label_value"),
		TmpRoleLabel:            s.text("tmp_role_label"),
		BootstrapLabels:         s.texts("bootstrap_labels"),
	}
	for name, at := range map[string]*string{"default": &k.Namespace, "kind-kind": &k.Context, "cluster-name": &k.ScopeLabel, "role": &k.RoleLabel} {
		if *at == "" {
			*at = name
		}
	}
	ports, _ := s["ports"].([]any)
	for _, p := range ports {
		m, _ := p.(map[string]any)
		port := KubernetesPort{Name: section(m).text("name"), Port: 5432, Protocol: section(m).text("protocol")}
		if n, err := strconv.ParseUint(section(m).text("port"), 10, 16); err == nil {
			port.Port = int(n)
		}
		k.Ports = append(k.Ports, port)
	}
	if len(ports) == 0 {
		k.Ports = []KubernetesPort{{Port: 5432}}
	}
	codes := s.list("retriable_http_codes")
	if one := s.text("retriable_http_codes"); len(codes) == 0 && one != "" {
		codes = []string{one}
	}
	for _, c := range codes {
		if n, err := strconv.Atoi(c); err == nil {
			k.RetriableHTTPCodes = append(k.RetriableHTTPCodes, n)
		}
	}
	return k
}

// texts is a map of scalars.
func (s section) texts(name string) map[string]string {
	out := map[string]string{}
	for k := range s.section(name) {
		out[k] = s.section(name).text(k)
	}
	return out
}
