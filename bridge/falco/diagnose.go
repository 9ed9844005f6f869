package falco

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// reason says what is wrong with the connection in words that help. What gRPC says of a connection that does not come about is
// one text for many causes: then it is tried step by step, as far as a step goes wrong.
func (g *GRPC) reason(ctx context.Context, err error) string {
	if errors.Is(err, io.EOF) {
		return fmt.Sprintf("falco gRPC output %q ended the stream, as it does when Falco stops", g.address)
	}
	says := grpcstatus.Convert(err).Message()
	switch grpcstatus.Code(err) {
	case codes.Unimplemented:
		return fmt.Sprintf("%q answers and has no service falco.outputs.service: it is not Falco, or one without gRPC output; Falco 0.44 removed that, use http_output", g.address)
	case codes.Internal, codes.DataLoss:
		return fmt.Sprintf("falco gRPC output %q sends what this version of the bridge cannot read: use http_output: %s", g.address, says)
	case codes.ResourceExhausted:
		return fmt.Sprintf("falco gRPC output %q sends an alert of more than %d MiB, which is lost: %s", g.address, maxMessage>>20, says)
	case codes.Unauthenticated, codes.PermissionDenied:
		return fmt.Sprintf("falco gRPC output %q does not admit the bridge: %s", g.address, says)
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	if found := g.probe(ctx); found != nil {
		return found.Error()
	}
	return fmt.Sprintf("falco gRPC output %q: %s", g.address, says)
}

// probeWithin bounds a probe, greetWithin the first answer of a peer in it.
const (
	probeWithin = 5 * time.Second
	greetWithin = time.Second
)

// probe connects step by step and explains the step that goes wrong; nil when none does.
func (g *GRPC) probe(ctx context.Context) error {
	if path, socket := strings.CutPrefix(g.config.UnixSocketPath, "unix://"); socket {
		return probeSocket(ctx, path)
	}
	return g.probeNetwork(ctx)
}

const enableGRPC = "Falco 0.44 removed gRPC output, use http_output; before that, set grpc.enabled and grpc_output.enabled to true in falco.yaml"

func probeSocket(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("falco gRPC socket %q does not exist: %s and share the socket's folder", path, enableGRPC)
	case err == nil && info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("falco gRPC socket %q is not a socket but %s: name the one of grpc.bind_address in falco.yaml", path, kindOf(info))
	case err == nil:
		var conn net.Conn
		if conn, err = new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			defer func() { _ = conn.Close() }()
			err = greet(conn)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("falco gRPC socket %q: permission denied: run the bridge as a user who may write to the socket and enter its folder", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("falco gRPC socket %q is left over, nobody listens there: start Falco; if it runs, %s", path, enableGRPC)
	}
	return fmt.Errorf("falco gRPC socket %q: %w", path, err)
}

func kindOf(info fs.FileInfo) string {
	if info.IsDir() {
		return "a folder"
	}
	return "a file"
}

func (g *GRPC) probeNetwork(ctx context.Context) error {
	config, err := g.files()
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", g.address)
	if err != nil {
		return g.unreachable(err)
	}
	defer func() { _ = conn.Close() }()
	secure := tls.Client(conn, config)
	err = secure.HandshakeContext(ctx)
	if err == nil {
		err = greet(secure) // in TLS 1.3 the peer judges our certificate only now
	}
	return g.insecure(err)
}

var errNotGRPC = errors.New("answers, but speaks no gRPC: is that Falco's?")

// greet starts HTTP/2, which begins with a frame of settings on either side (https://www.rfc-editor.org/rfc/rfc9113#section-3.4).
// Nil also means that the peer says nothing.
func greet(conn net.Conn) error {
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	_ = conn.SetDeadline(time.Now().Add(greetWithin))
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)); err != nil {
		return silent(err)
	}
	var head [len(settings)]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return silent(err)
	}
	if head[3] != settings[3] {
		return errNotGRPC
	}
	return nil
}

// silent keeps only errors that say more than that the peer does not talk.
func silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func (g *GRPC) unreachable(err error) error {
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("falco gRPC output %q: host %q is not known: %w", g.address, name.Name, err)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("falco gRPC output %q refuses connections, nobody listens there: start Falco; if it runs, %s", g.address, enableGRPC)
	}
	return fmt.Errorf("falco gRPC output %q cannot be reached: %w", g.address, err)
}

// files reads the certificates anew and says what is wrong with them.
func (g *GRPC) files() (*tls.Config, error) {
	c := g.config
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate %q with key %q (--falco-cert, --falco-key): %w", c.CertFile, c.KeyFile, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		return nil, fmt.Errorf("client certificate %q (--falco-cert) is valid from %s to %s: renew it, it is read anew at each connection",
			c.CertFile, pair.Leaf.NotBefore.Format(time.RFC3339), pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	text, err := os.ReadFile(c.CARootFile)
	if err != nil {
		return nil, fmt.Errorf("CA of Falco's certificate (--falco-ca): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("CA of Falco's certificate %q (--falco-ca) holds no certificate in PEM", c.CARootFile)
	}
	return &tls.Config{
		ServerName: c.Hostname, Certificates: []tls.Certificate{pair}, RootCAs: pool, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	}, nil
}

// insecure explains why TLS did not come about, nil for nil.
func (g *GRPC) insecure(err error) error {
	if err == nil {
		return nil
	}
	at := fmt.Sprintf("falco gRPC output %q", g.address)
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("%s: its certificate is not for this name: name the bridge's --falco-grpc as in the certificate, or make one with this name: %w", at, name)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%s: its certificate is not of the CA in %q (--falco-ca): name the CA that signed grpc.cert_chain of falco.yaml: %w", at, g.config.CARootFile, err)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Errorf("%s: its certificate has expired or is not yet valid: renew grpc.cert_chain of falco.yaml, and look at the clocks: %w", at, err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("%s speaks no TLS: Falco's gRPC server does on a network address: is that its port?", at)
	}
	if remote, ok := errors.AsType[*net.OpError](err); ok && remote.Op == "remote error" {
		return fmt.Errorf("%s does not accept the bridge's certificate %q (--falco-cert): it must be of the CA in grpc.root_certs of falco.yaml: %w", at, g.config.CertFile, err)
	}
	return fmt.Errorf("%s: %w", at, err)
}
