package serve

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// guard refuses what a web page of another site could send: without it, any site visited could read the feed, directly by
// WebSocket (which knows no same-origin rule), or by a name of its own that it lets point to 127.0.0.1.
func (s *server) guard(r *http.Request) error {
	if !s.o.AnyHost && !isLoopback(r.Host) {
		return faultf(http.StatusForbidden, "host %s is not this machine: without authentication the bridge answers only as localhost, 127.0.0.1 or [::1]; reach it from elsewhere through ssh -L or kubectl port-forward", quoted(r.Host))
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 || len(origins) == 1 && sameHost(origins[0], r.Host) {
		return nil
	}
	return faultf(http.StatusForbidden, "origin %s is not %s: pages of other sites may not read the feed", quoted(strings.Join(origins, ", ")), quoted(r.Host))
}

// isLoopback reports a Host header that names this machine, with any port or none.
func isLoopback(host string) bool {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Zone() == "" && ip.IsLoopback()
}

// sameHost reports an origin such as "http://localhost:8080" of the request's own host and port.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.EqualFold(u.Host, host)
}

// contentPolicy: scripts, styles and connections of this address only; the image is the page's empty icon.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

func securityHeaders(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}
