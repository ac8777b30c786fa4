package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	k8swatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// api is one connection to the API server and the requests that we make: lists and watches of
// three resources, and writes of Leases. Of Patroni's objects only the metadata is asked for.
//
// Only parts of client-go are used that do without the types of the whole API, whose
// registration would slow down the start of every walbaton command.
type api struct {
	host      string
	namespace string
	selectors [lists]string
	resources [lists]string
	objects   metadata.Interface
	leases    rest.Interface
	params    runtime.ParameterCodec
	dialer    *connrotation.Dialer
}

func newAPI(a Access, namespace string, n names) (*api, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 10 * time.Second}).DialContext)
	cfg.Dial = dialer.DialContext
	cfg.UserAgent = "walbaton"
	cfg.QPS = -1                           // no pace of its own: the election has one
	cfg.WarningHandler = rest.NoWarnings{} // of every request, that Endpoints are deprecated
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	s := &api{
		host:      cfg.Host,
		namespace: namespace,
		selectors: [lists]string{leases: n.ours, pods: n.patroni, kinds: n.patroni},
		resources: [lists]string{leases: "leases", pods: "pods", kinds: n.kind},
		dialer:    dialer,
	}
	if s.objects, err = metadata.NewForConfigAndClient(cfg, httpClient); err != nil {
		return nil, err
	}
	s.leases, s.params, err = leaseClient(cfg, httpClient)
	return s, err
}

// leaseClient knows one resource.
func leaseClient(cfg *rest.Config, h *http.Client) (rest.Interface, runtime.ParameterCodec, error) {
	scheme := runtime.NewScheme()
	if err := coordinationv1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	own := rest.CopyConfig(cfg)
	own.APIPath, own.GroupVersion = "/apis", &coordinationv1.SchemeGroupVersion
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientForConfigAndClient(own, h)
	return client, runtime.NewParameterCodec(scheme), err
}

func (s *api) resource(list int) metadata.ResourceInterface {
	return s.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: s.resources[list]}).Namespace(s.namespace)
}

// list returns what the selector of a list finds, and the revision of that.
func (s *api) list(ctx context.Context, list int) ([]metav1.Object, uint64, error) {
	o := metav1.ListOptions{LabelSelector: s.selectors[list]}
	if list == leases {
		found, revision, err := s.listLeases(ctx, o)
		objects := make([]metav1.Object, len(found))
		for i := range found {
			objects[i] = &found[i]
		}
		return objects, revision, err
	}
	found, err := s.resource(list).List(quietly(ctx), o)
	if err != nil {
		return nil, 0, s.failed(ctx, "list", list, err)
	}
	objects := make([]metav1.Object, len(found.Items))
	for i := range found.Items {
		objects[i] = &found.Items[i]
	}
	revision, err := parseRevision(found.ResourceVersion)
	return objects, revision, err
}

func (s *api) listLeases(ctx context.Context, o metav1.ListOptions) ([]coordinationv1.Lease, uint64, error) {
	var found coordinationv1.LeaseList
	err := s.leases.Get().Namespace(s.namespace).Resource("leases").VersionedParams(&o, s.params).Do(quietly(ctx)).Into(&found)
	if err != nil {
		return nil, 0, s.failed(ctx, "list", leases, err)
	}
	revision, err := parseRevision(found.ResourceVersion)
	return found.Items, revision, err
}

// find returns the Lease of a name, nil when there is none, and the revision at which that was so.
// It is a list, which a right to list allows, and which has the revision of everything.
func (s *api) find(ctx context.Context, name string) (*coordinationv1.Lease, uint64, error) {
	found, revision, err := s.listLeases(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil || len(found) == 0 {
		return nil, revision, err
	}
	return &found[0], revision, nil
}

// errChanged says that a Lease is not any more what a write was to replace.
var errChanged = errors.New("changed by another client")

// write creates the Lease, or replaces the one of the same resourceVersion; errChanged when
// another client was faster.
func (s *api) write(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	verb, r := "create", s.leases.Post()
	if l.ResourceVersion != "" {
		verb, r = "update", s.leases.Put().Name(l.Name)
	}
	var written coordinationv1.Lease
	err := r.Namespace(s.namespace).Resource("leases").Body(l).Do(quietly(ctx)).Into(&written)
	switch {
	case err == nil:
		return &written, nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), verb == "update" && apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%s leases: %w", verb, errChanged)
	}
	return nil, s.failed(ctx, verb, leases, err)
}

// watch follows a list from a revision on, until ctx ends.
func (s *api) watch(ctx context.Context, list int, from uint64) (k8swatch.Interface, error) {
	o := metav1.ListOptions{LabelSelector: s.selectors[list], ResourceVersion: strconv.FormatUint(from, 10), Watch: true}
	var w k8swatch.Interface
	var err error
	if list == leases {
		w, err = s.leases.Get().Namespace(s.namespace).Resource("leases").VersionedParams(&o, s.params).Watch(quietly(ctx))
	} else {
		w, err = s.resource(list).Watch(quietly(ctx), o)
	}
	if err != nil {
		return nil, s.failed(ctx, "watch", list, err)
	}
	return w, nil
}

// failed says what an administrator can do about it. After a request that got no answer the next
// one dials again: client-go by itself would keep to a dead connection for 45 s.
func (s *api) failed(ctx context.Context, verb string, list int, err error) error {
	resource := s.resources[list]
	switch {
	case ctx.Err() != nil:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.reset()
		}
		return ctx.Err()
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s %s: permission denied: a Role must allow the verb %s on %s in namespace %s: %w", verb, resource, verb, resource, s.namespace, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s %s: the API server does not accept our token or certificate: %w", verb, resource, err)
	}
	return fmt.Errorf("%s %s: %w", verb, resource, err)
}

// reset closes all connections.
func (s *api) reset() { s.dialer.CloseAll() }

// parseRevision reads a resourceVersion, which since Kubernetes 1.35 is a number by its definition
// and has always been the revision of etcd (KEP 5504).
func parseRevision(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q is not a number", s)
	}
	return n, nil
}

func revisionOf(o metav1.Object) uint64 {
	n, _ := parseRevision(o.GetResourceVersion()) // 0 is older than everything
	return n
}

// quietly keeps client-go from writing its own log to standard error, beside ours: what it says there of a request is in the
// error that it returns, too.
func quietly(ctx context.Context) context.Context { return logr.NewContext(ctx, logr.Discard()) }
