package falco_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/falcosecurity/client-go/pkg/api/version"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// identity is a certificate with its key, in memory and as files.
type identity struct {
	own       *x509.Certificate
	private   *ecdsa.PrivateKey
	cert, key string
}

type authority struct{ identity }

const valid = time.Hour

func newAuthority(t testing.TB, name string) authority {
	t.Helper()
	return authority{issue(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
	})}
}

// leaf makes a certificate that ends after so long, for the loopback addresses or, where names are given, for those.
func (ca authority) leaf(t testing.TB, name string, ends time.Duration, names ...string) identity {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(ends), DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return issue(t, &ca.identity, template)
}

// issue signs a template, with its own key where there is no issuer.
func issue(t testing.TB, by *identity, template *x509.Certificate) identity {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = &identity{own: template, private: private}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.own, private.Public(), by.private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	i := identity{private: private, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	if i.own, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{i.cert: {Type: "CERTIFICATE", Bytes: der}, i.key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// server is TLS as Falco's server asks for it: a client without a certificate of clients is not admitted.
func (ca authority) server(t testing.TB, own identity, clients authority) credentials.TransportCredentials {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(own.cert, own.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(clients.own)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
}

// TestGRPCSaysWhatIsWrongWithASocket: each has its own words, and the way out.
func TestGRPCSaysWhatIsWrongWithASocket(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		says []string
	}{
		"missing":  {func(*testing.T, string) {}, []string{"does not exist", "http_output", "grpc_output.enabled"}},
		"a folder": {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, []string{"is not a socket but a folder", "grpc.bind_address"}},
		"a file": {func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o600)) },
			[]string{"is not a socket but a file", "grpc.bind_address"}},
		"left over": {func(t *testing.T, path string) {
			l := listen(t, "unix", path)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			must(t, l.Close())
		}, []string{"is left over", "start Falco", "http_output"}},
		"not gRPC": {func(t *testing.T, path string) {
			other := &http.Server{}
			served := make(chan error)
			l := listen(t, "unix", path)
			go func() { served <- other.Serve(l) }()
			t.Cleanup(func() { other.Close(); <-served })
		}, []string{"falco gRPC socket", "speaks no gRPC"}},
		"without the service": {func(t *testing.T, path string) { serveOther(t, listen(t, "unix", path), func(*grpc.Server) {}) },
			[]string{"has no service falco.outputs.service", "Falco 0.44 removed", "http_output"}},
		"another version": {func(t *testing.T, path string) {
			serveOther(t, listen(t, "unix", path), func(s *grpc.Server) { outputs.RegisterServiceServer(s, garbled{}) })
		}, []string{"cannot read", "use http_output"}},
		"no admission": {func(t *testing.T, path string) {
			serveOther(t, listen(t, "unix", path), func(s *grpc.Server) { outputs.RegisterServiceServer(s, closedDoor{}) })
		}, []string{"does not admit the bridge", "go away"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			c.make(t, path)
			run := run(t, falco.GRPCOptions{Address: "unix://" + path})
			run.awaitStatus("degraded", path)
			for _, says := range c.says {
				run.awaitStatus("degraded", says)
			}
			if n := figure(t, run.registry, "tfdrift_intake_connections"); n != 0 {
				t.Errorf("%v connections counted", n)
			}
			eventually(t, "further tries", func() bool { return figure(t, run.registry, "tfdrift_intake_reconnects_total") > 1 })
			must(t, run.stop())
			if n := strings.Count(run.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d lines in the log, want 1: %s", n, &run.log)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serveOther is a gRPC server that is not Falco's.
func serveOther(t *testing.T, l net.Listener, register func(*grpc.Server), options ...grpc.ServerOption) {
	t.Helper()
	s := grpc.NewServer(options...)
	register(s)
	version.RegisterServiceServer(s, version.UnimplementedServiceServer{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Stop(); <-served })
}

// garbled answers with what is no message of the service.
type garbled struct {
	outputs.UnimplementedServiceServer
}

func (garbled) Sub(outputs.Service_SubServer) error {
	return grpcstatus.Error(codes.Internal, "failed to unmarshal")
}

type closedDoor struct {
	outputs.UnimplementedServiceServer
}

func (closedDoor) Sub(outputs.Service_SubServer) error {
	return grpcstatus.Error(codes.PermissionDenied, "go away")
}

// TestGRPCSaysWhatIsWrongWithTLS, with real certificates: the name, the CA and the end of each, on both sides.
func TestGRPCSaysWhatIsWrongWithTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	good, mine := ca.leaf(t, "falco", valid), ca.leaf(t, "bridge", valid)
	text := filepath.Join(t.TempDir(), "text.pem")
	must(t, os.WriteFile(text, []byte("no certificate"), 0o600))
	with := func(own identity, trust string) falco.GRPCOptions {
		return falco.GRPCOptions{CertFile: own.cert, KeyFile: own.key, CAFile: trust}
	}
	over := func(own identity, clients authority) grpc.ServerOption { return grpc.Creds(ca.server(t, own, clients)) }
	expired := ca.leaf(t, "bridge", -time.Hour)
	mixed := falco.GRPCOptions{CertFile: mine.cert, KeyFile: good.key, CAFile: ca.cert}
	for name, c := range map[string]struct {
		o      falco.GRPCOptions
		server grpc.ServerOption // nil speaks no TLS
		says   []string
	}{
		"another name":                   {with(mine, ca.cert), over(ca.leaf(t, "falco", valid, "falco.example"), ca), []string{"not for this name", "--falco-grpc"}},
		"another CA":                     {with(mine, other.cert), over(good, ca), []string{"not of the CA in", "--falco-ca"}},
		"Falco's is expired":             {with(mine, ca.cert), over(ca.leaf(t, "falco", -time.Hour), ca), []string{"has expired", "grpc.cert_chain"}},
		"the bridge's is expired":        {with(expired, ca.cert), over(good, ca), []string{expired.cert, "is valid from", "renew it"}},
		"the bridge's is of another CA":  {with(other.leaf(t, "bridge", valid), ca.cert), over(good, ca), []string{"does not accept the bridge's certificate", "grpc.root_certs"}},
		"a key of another certificate":   {mixed, over(good, ca), []string{"--falco-key", "private key does not match"}},
		"no such file":                   {with(identity{cert: "none.pem", key: mine.key}, ca.cert), over(good, ca), []string{"--falco-cert", "none.pem: no such file"}},
		"no such CA":                     {with(mine, "none.pem"), over(good, ca), []string{"--falco-ca", "none.pem: no such file"}},
		"a CA that is none":              {with(mine, text), over(good, ca), []string{"--falco-ca", "holds no certificate"}},
		"no TLS":                         {with(mine, ca.cert), nil, []string{"speaks no TLS", "is that its port?"}},
		"all well, but not Falco's port": {with(mine, ca.cert), over(good, ca), []string{"has no service falco.outputs.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, "tcp", "127.0.0.1:0")
			var options []grpc.ServerOption
			if c.server != nil {
				options = append(options, c.server)
			}
			serveOther(t, l, func(*grpc.Server) {}, options...)
			c.o.Address = l.Addr().String()
			run := run(t, c.o)
			for _, says := range c.says {
				run.awaitStatus("degraded", says)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		l := listen(t, "tcp", "127.0.0.1:0")
		l.Close()
		o := with(mine, ca.cert)
		o.Address = l.Addr().String()
		run(t, o).awaitStatus("degraded", "refuses connections, nobody listens there")
	})
}

// TestGRPCReadsCertificatesAnew: a renewed certificate is taken without a restart.
func TestGRPCReadsCertificatesAnew(t *testing.T) {
	ca := newAuthority(t, "ca")
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, numbered(t, 0, 5), grpc.Creds(ca.server(t, ca.leaf(t, "falco", valid), ca)))
	old, renewed := ca.leaf(t, "bridge", -time.Hour), ca.leaf(t, "bridge", valid)
	c := run(t, falco.GRPCOptions{Address: l.Addr().String(), CertFile: old.cert, KeyFile: old.key, CAFile: ca.cert})
	c.awaitStatus("degraded", "renew it")
	must(t, os.Rename(renewed.key, old.key))
	must(t, os.Rename(renewed.cert, old.cert))
	wantEvents(t, c.book.wait(5), 5)
	c.awaitStatus("well", "")
}

// TestGRPCPauses: tries become rarer up to the limit, and are not all at the same moments.
func TestGRPCPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(context.Background(), t.TempDir(), journal.Options{})
		must(t, err)
		defer j.Close()
		registry := prometheus.NewRegistry()
		g, err := falco.NewGRPC(j, falco.GRPCOptions{Address: "unix://" + filepath.Join(t.TempDir(), "none.sock"), Metrics: registry, MaxBackoff: 10 * time.Second})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		tries := func() float64 { return figure(t, registry, "tfdrift_intake_reconnects_total") }
		time.Sleep(10 * time.Second)
		if n := tries(); n < 3 || n > 9 { // after about 0.2, 0.6, 1.4, 3 and 6 s
			t.Errorf("%v tries in the first 10 s", n)
		}
		before := tries()
		time.Sleep(20 * time.Minute)
		if n := tries() - before; n < 120 || n > 240 { // each 5 to 10 s
			t.Errorf("%v tries in 20 minutes, want one in 5 to 10 s", n)
		}
		cancel()
		must(t, <-ended)
	})
}

// TestGRPCPausesLittleAfterSuccess: a Falco that restarts is found again soon, however long it had been away before.
func TestGRPCPausesLittleAfterSuccess(t *testing.T) {
	t.Parallel()
	path := socket(t)
	c := run(t, falco.GRPCOptions{Address: "unix://" + path, MaxBackoff: time.Hour})
	eventually(t, "a few tries", func() bool { return figure(t, c.registry, "tfdrift_intake_reconnects_total") >= 4 }) // the next pause is 1.6 to 4.8 s
	s := serve(t, listen(t, "unix", path), numbered(t, 0, 1))
	c.book.wait(1)
	if n := figure(t, c.registry, "tfdrift_intake_connections"); n != 1 {
		t.Errorf("%v connections counted", n)
	}
	s.stop()
	c.awaitStatus("degraded", "ended the stream")
	start := time.Now()
	serve(t, listen(t, "unix", path), numbered(t, 1, 1))
	c.book.wait(2)
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("found again after %v", took)
	}
}
