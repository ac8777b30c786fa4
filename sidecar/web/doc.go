// Package web is what a sidecar answers over HTTP:
//
//	/              the page: the whole cluster, live, for people
//	/events        what the page listens to: one JSON document of the whole cluster per server-sent event
//	/cluster.json  that document, once
//	/status.json   what this sidecar knows, without asking anybody
//	/metrics       for Prometheus
//	/livez         200 as long as the process answers; it never looks at the network
//	/readyz        200, or 503 and why not in one sentence
//
// Nothing here changes anything: every path takes GET and HEAD only.
//
// The page is one file without a build step: assets/index.html, style.css and page.js, put together when the program starts. It asks
// nobody but the sidecar that it came from, and a Content-Security-Policy with the digests of its own style and script keeps that so.
//
// The document is gathered when somebody looks and only then, once for all who look: every two seconds, and at once when something
// has changed ([Sources].Changed), but never more than five times a second. A page that is closed ends its goroutine.
//
// With [Options].Username everything but /livez and /readyz asks for the password (HTTP basic authentication): kubelets and load balancers have none.
// Who does not give it is not told why a node is not ready. With [Options].Cert all of it is HTTPS, and a changed certificate is read again.
//
// The package knows nothing of walbaton: what it shows comes from [Sources].
package web
