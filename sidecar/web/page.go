package web

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

//go:embed assets/index.html
var indexHTML string

//go:embed assets/style.css
var styleCSS string

//go:embed assets/page.js
var pageJS string

// What index.html has in the place of the other two files: it can be opened from a checkout as it is.
const (
	styleLink  = `<link rel="stylesheet" href="style.css">`
	scriptLink = `<script src="page.js"></script>`
)

// newPage puts the page together. Nothing is loaded but what is in it, and nothing else in it is run.
func newPage() http.Handler {
	html := strings.Replace(indexHTML, styleLink, "<style>"+styleCSS+"</style>", 1)
	html = strings.Replace(html, scriptLink, "<script>"+pageJS+"</script>", 1)
	policy := strings.Join([]string{"default-src 'none'", "style-src " + digest(styleCSS), "script-src " + digest(pageJS),
		"connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"}, "; ")
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write([]byte(html)) // the client went away
	})
}

// digest names a text in a Content-Security-Policy.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
