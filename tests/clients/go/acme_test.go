// golang.org/x/crypto/acme against the engine: each challenge by a responder on loopback addresses of the test's own.
package clients

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"
	"golang.org/x/crypto/acme"
	"golang.org/x/net/dns/dnsmessage"
)

// world answers for every name below its domain: one address, and the texts that were put up.
type world struct {
	sync.Mutex
	ip       net.IP
	resolver string
	texts    map[string][]string
	pages    map[string]string
	certs    map[string]*tls.Certificate
}

// listen skips the test where a process may not bind the ports that the protocol prescribes.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EACCES) {
		t.Skipf("%s: ports below 1024 are not for this user", address)
	}
	ok(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func outside(t *testing.T) *world {
	w := &world{ip: net.IPv4(127, 117, byte(os.Getpid()>>8), byte(os.Getpid())|1), texts: map[string][]string{},
		pages: map[string]string{}, certs: map[string]*tls.Certificate{}}
	plain, secret := listen(t, w.ip.String()+":80"), listen(t, w.ip.String()+":443")
	go http.Serve(plain, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.Lock()
		defer w.Unlock()
		io.WriteString(out, w.pages[r.Host+r.URL.Path])
	}))
	config := &tls.Config{NextProtos: []string{acme.ALPNProto}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		w.Lock()
		defer w.Unlock()
		return w.certs[h.ServerName], nil
	}}
	go func() {
		for {
			c, err := secret.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				tls.Server(c, config).Handshake()
			}()
		}
	}()
	udp, err := net.ListenPacket("udp", w.ip.String()+":0")
	ok(t, err)
	t.Cleanup(func() { udp.Close() })
	w.resolver = udp.LocalAddr().String()
	go func() {
		packet := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(packet)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(packet[:n]) == nil && len(m.Questions) == 1 {
				answer := w.answer(m)
				if bytes, err := answer.Pack(); err == nil {
					udp.WriteTo(bytes, from)
				}
			}
		}
	}()
	return w
}

func (w *world) answer(m dnsmessage.Message) dnsmessage.Message {
	w.Lock()
	defer w.Unlock()
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	switch q.Type {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: [4]byte(w.ip.To4())}}}
	case dnsmessage.TypeTXT:
		for _, text := range w.texts[strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")] {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.TXTResource{TXT: []string{text}}})
		}
	}
	return m
}

// order proves every name by one kind of challenge and returns the chain.
func (w *world) order(t *testing.T, c *acme.Client, kind string, names ...string) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	order := must[*acme.Order](t)(c.AuthorizeOrder(ctx, acme.DomainIDs(names...)))
	for _, url := range order.AuthzURLs {
		authz := must[*acme.Authorization](t)(c.GetAuthorization(ctx, url))
		var chosen *acme.Challenge
		for _, one := range authz.Challenges {
			if one.Type == kind {
				chosen = one
			}
		}
		if chosen == nil {
			t.Fatalf("%s is not offered for %s", kind, authz.Identifier.Value)
		}
		w.prove(t, c, authz.Identifier.Value, chosen)
		must[*acme.Challenge](t)(c.Accept(ctx, chosen))
		must[*acme.Authorization](t)(c.WaitAuthorization(ctx, url))
	}
	order = must[*acme.Order](t)(c.WaitOrder(ctx, order.URI))
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}, key))
	chain, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	ok(t, err)
	return chain
}

func (w *world) prove(t *testing.T, c *acme.Client, host string, one *acme.Challenge) {
	t.Helper()
	w.Lock()
	defer w.Unlock()
	switch one.Type {
	case "http-01":
		w.pages[host+c.HTTP01ChallengePath(one.Token)] = must[string](t)(c.HTTP01ChallengeResponse(one.Token))
	case "dns-01":
		name := "_acme-challenge." + host
		w.texts[name] = append(w.texts[name], must[string](t)(c.DNS01ChallengeRecord(one.Token)))
	case "tls-alpn-01":
		cert := must[tls.Certificate](t)(c.TLSALPN01ChallengeCert(one.Token, host))
		w.certs[host] = &cert
	}
}

func TestAcme(t *testing.T) {
	w := outside(t)
	vault, mount := root(t), name("pki")
	ok(t, vault.Sys().Mount(mount, &api.MountInput{Type: "pki"}))
	t.Cleanup(func() { ok(t, vault.Sys().Unmount(mount)) })
	write := func(path string, body data) {
		t.Helper()
		_, err := vault.Logical().Write(mount+"/"+path, body)
		ok(t, err)
	}
	write("root/generate/internal", data{"common_name": "Root", "key_type": "ec", "ttl": "8760h"})
	write("config/cluster", data{"path": os.Getenv("VAULT_ADDR") + "/v1/" + mount})
	write("config/acme", data{"enabled": true, "dns_resolver": w.resolver, "permitted_address_ranges": w.ip.String() + "/32"})
	write("roles/web", data{"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "any"})
	pool := x509.NewCertPool()
	raw := must[*http.Response](t)(http.Get(os.Getenv("VAULT_ADDR") + "/v1/" + mount + "/ca/pem"))
	defer raw.Body.Close()
	pool.AppendCertsFromPEM(must[[]byte](t)(io.ReadAll(raw.Body)))

	for _, directory := range []string{"acme", "roles/web/acme"} {
		var key crypto.Signer = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		c := &acme.Client{Key: key, DirectoryURL: fmt.Sprintf("%s/v1/%s/%s/directory", os.Getenv("VAULT_ADDR"), mount, directory)}
		must[*acme.Account](t)(c.Register(context.Background(), &acme.Account{Contact: []string{"mailto:me@example.com"}}, acme.AcceptTOS))
		for _, one := range []struct {
			kind  string
			names []string
		}{
			{"http-01", []string{"h.example.com"}},
			{"dns-01", []string{"d.example.com", "e.example.com"}},
			{"dns-01", []string{"*.w.example.com", "w.example.com"}},
			{"tls-alpn-01", []string{"t.example.com"}},
		} {
			t.Run(directory+"/"+one.kind+"/"+one.names[0], func(t *testing.T) {
				chain := w.order(t, c, one.kind, one.names...)
				leaf := must[*x509.Certificate](t)(x509.ParseCertificate(chain[0]))
				for _, n := range one.names {
					_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: strings.Replace(n, "*", "any", 1)})
					ok(t, err)
				}
				ok(t, c.RevokeCert(context.Background(), nil, chain[0], acme.CRLReasonSuperseded))
			})
		}
	}

	// without the range nothing on loopback is connected to, and the order fails as the protocol has it
	write("config/acme", data{"permitted_address_ranges": ""})
	c := &acme.Client{Key: must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		DirectoryURL: fmt.Sprintf("%s/v1/%s/acme/directory", os.Getenv("VAULT_ADDR"), mount)}
	ctx := context.Background()
	must[*acme.Account](t)(c.Register(ctx, &acme.Account{}, acme.AcceptTOS))
	order := must[*acme.Order](t)(c.AuthorizeOrder(ctx, acme.DomainIDs("g.example.com")))
	authz := must[*acme.Authorization](t)(c.GetAuthorization(ctx, order.AuthzURLs[0]))
	for _, one := range authz.Challenges {
		if one.Type == "http-01" {
			w.prove(t, c, "g.example.com", one)
			must[*acme.Challenge](t)(c.Accept(ctx, one))
		}
	}
	_, err := c.WaitAuthorization(ctx, order.AuthzURLs[0])
	var refused *acme.AuthorizationError
	if !errors.As(err, &refused) || !strings.Contains(refused.Error(), "acme:error:connection") {
		t.Fatalf("the guard let it pass: %v", err)
	}
}
