package serve

import (
	"bytes"
	"embed"
	"net/http"
	"time"
)

// The page needs no build and loads nothing from elsewhere. It writes what it receives as text nodes only.
//
//go:embed page
var pageFS embed.FS

// pageFiles gives a handler for each of the page's files, by path.
func pageFiles() map[string]http.HandlerFunc {
	files := map[string]http.HandlerFunc{}
	for path, f := range map[string]struct{ name, contentType string }{
		"/":          {"index.html", "text/html; charset=utf-8"},
		"/app.js":    {"app.js", "text/javascript; charset=utf-8"},
		"/style.css": {"style.css", "text/css; charset=utf-8"},
	} {
		content, _ := pageFS.ReadFile("page/" + f.name) // embedded: the page's test reads them all
		files[path] = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", f.contentType)
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(content))
		}
	}
	return files
}
