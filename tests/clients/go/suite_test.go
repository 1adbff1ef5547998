// Driven by `tests/clients/run` with VAULT_ADDR and VAULT_TOKEN (root). Each test makes its own mounts, users and
// policies under names nobody else uses.
package clients

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/userpass"
)

const patience = 30 * time.Second

var names atomic.Int32

type data = map[string]any

func name(prefix string) string {
	return fmt.Sprintf("%s-go%d", prefix, names.Add(1))
}

func client(t *testing.T, token string) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	ok(t, config.Error)
	config.Address = os.Getenv("VAULT_ADDR")
	config.MaxRetries = 0
	c, err := api.NewClient(config)
	ok(t, err)
	c.SetToken(token)
	return c
}

func root(t *testing.T) *api.Client {
	return client(t, os.Getenv("VAULT_TOKEN"))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		ok(t, err)
		return value
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

// refused asserts that the server answered with this status and said this.
func refused(t *testing.T, err error, status int, text string) {
	t.Helper()
	var answer *api.ResponseError
	if !errors.As(err, &answer) {
		t.Fatalf("not an answer of the server: %v", err)
	}
	if answer.StatusCode != status || !strings.Contains(strings.Join(answer.Errors, "; "), text) {
		t.Fatalf("got %d %q, want %d %q", answer.StatusCode, answer.Errors, status, text)
	}
}

func engine(t *testing.T, version string) string {
	t.Helper()
	mount, c := name("kv"), root(t)
	ok(t, c.Sys().Mount(mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": version}}))
	t.Cleanup(func() { ok(t, c.Sys().Unmount(mount)) })
	return mount
}

func method(t *testing.T, kind string) string {
	t.Helper()
	mount, c := name(kind), root(t)
	ok(t, c.Sys().EnableAuthWithOptions(mount, &api.EnableAuthOptions{Type: kind}))
	t.Cleanup(func() { ok(t, c.Sys().DisableAuth(mount)) })
	return mount
}

func policy(t *testing.T, text string) string {
	t.Helper()
	policy := name("policy")
	ok(t, root(t).Sys().PutPolicy(policy, text))
	return policy
}

func token(t *testing.T, request *api.TokenCreateRequest) *api.SecretAuth {
	t.Helper()
	return must[*api.Secret](t)(root(t).Auth().Token().Create(request)).Auth
}

func TestStatus(t *testing.T) {
	sys := root(t).Sys()
	health := must[*api.HealthResponse](t)(sys.Health())
	same(t, []bool{health.Initialized, health.Sealed, health.Standby}, []bool{true, false, false})
	seal := must[*api.SealStatusResponse](t)(sys.SealStatus())
	same(t, []any{seal.Type, seal.Sealed, seal.T, seal.N, seal.Version}, []any{"shamir", false, 1, 1, health.Version})
	same(t, must[bool](t)(sys.InitStatus()), true)
	must[*api.LeaderResponse](t)(sys.Leader())
	if status := must[*api.KeyStatus](t)(sys.KeyStatus()); status.Term < 1 || status.InstallTime.IsZero() {
		t.Fatalf("%+v", status)
	}
	progress := must[*api.GenerateRootStatusResponse](t)(sys.GenerateRootStatus())
	same(t, progress.Started, false)
	same(t, must[*api.RekeyStatusResponse](t)(sys.RekeyStatus()).Started, false)
}

func TestMounts(t *testing.T) {
	sys, mount := root(t).Sys(), engine(t, "2")
	listed := must[map[string]*api.MountOutput](t)(sys.ListMounts())
	same(t, listed[mount+"/"].Type, "kv")
	same(t, listed[mount+"/"].Options, map[string]string{"version": "2"})
	same(t, must[*api.MountOutput](t)(sys.GetMount(mount)).Accessor, listed[mount+"/"].Accessor)
	description := "tuned"
	ok(t, sys.TuneMount(mount, api.MountConfigInput{
		DefaultLeaseTTL: "1h", MaxLeaseTTL: "2h", Description: &description, ListingVisibility: "unauth",
	}))
	tuned := must[*api.MountConfigOutput](t)(sys.MountConfig(mount))
	same(t, []any{tuned.DefaultLeaseTTL, tuned.MaxLeaseTTL, tuned.ListingVisibility}, []any{3600, 7200, "unauth"})
	moved := name("moved")
	ok(t, sys.Remount(mount, moved))
	must[*api.MountOutput](t)(sys.GetMount(moved))
	ok(t, sys.Unmount(moved))
	_, err := sys.GetMount(moved)
	refused(t, err, http.StatusBadRequest, "No secret engine mount at")

	people := method(t, "userpass")
	auths := must[map[string]*api.AuthMount](t)(sys.ListAuth())
	same(t, auths[people+"/"].Type, "userpass")
	same(t, auths["token/"].Type, "token")
}

func TestKVv1(t *testing.T) {
	ctx, c, mount := context.Background(), root(t), engine(t, "1")
	kv := c.KVv1(mount)
	ok(t, kv.Put(ctx, "app/one", data{"text": "ü <&>"}))
	same(t, must[*api.KVSecret](t)(kv.Get(ctx, "app/one")).Data, data{"text": "ü <&>"})
	listed := must[*api.Secret](t)(c.Logical().List(mount + "/app"))
	same(t, listed.Data["keys"], []any{"one"})
	ok(t, kv.Delete(ctx, "app/one"))
	if _, err := kv.Get(ctx, "app/one"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Fatal(err)
	}
	if secret := must[*api.Secret](t)(c.Logical().Read(mount + "/app/one")); secret != nil {
		t.Fatalf("%+v", secret)
	}
}

func TestKVv2(t *testing.T) {
	ctx, mount := context.Background(), engine(t, "2")
	kv := root(t).KVv2(mount)
	secret := must[*api.KVSecret](t)
	first := secret(kv.Put(ctx, "app/one", data{"a": "1", "b": "2"}, api.WithCheckAndSet(0)))
	same(t, first.VersionMetadata.Version, 1)
	_, err := kv.Put(ctx, "app/one", data{"a": "x"}, api.WithCheckAndSet(0))
	refused(t, err, http.StatusBadRequest, "check-and-set parameter did not match the current version")
	secret(kv.Patch(ctx, "app/one", data{"b": "3"}))
	secret(kv.Patch(ctx, "app/one", data{"c": "4"}, api.WithMergeMethod(api.KVMergeMethodReadWrite)))
	_, err = kv.Patch(ctx, "absent", data{"b": "3"})
	if !errors.Is(err, api.ErrSecretNotFound) {
		t.Fatal(err)
	}
	third := secret(kv.Get(ctx, "app/one"))
	same(t, third.Data, data{"a": "1", "b": "3", "c": "4"})
	same(t, third.VersionMetadata.Version, 3)
	same(t, secret(kv.GetVersion(ctx, "app/one", 1)).Data, data{"a": "1", "b": "2"})

	ok(t, kv.Delete(ctx, "app/one"))
	deleted := secret(kv.Get(ctx, "app/one"))
	if deleted.Data != nil || deleted.VersionMetadata.DeletionTime.IsZero() {
		t.Fatalf("%+v", deleted)
	}
	ok(t, kv.Undelete(ctx, "app/one", []int{3}))
	same(t, secret(kv.Get(ctx, "app/one")).Data, third.Data)
	ok(t, kv.DeleteVersions(ctx, "app/one", []int{1}))
	ok(t, kv.Destroy(ctx, "app/one", []int{2}))
	same(t, secret(kv.Rollback(ctx, "app/one", 3)).VersionMetadata.Version, 4)

	versions := must[[]api.KVVersionMetadata](t)(kv.GetVersionsAsList(ctx, "app/one"))
	same(t, len(versions), 4)
	same(t, []bool{versions[0].DeletionTime.IsZero(), versions[1].Destroyed}, []bool{false, true})
	ok(t, kv.PutMetadata(ctx, "app/one", api.KVMetadataPutInput{
		MaxVersions: 7, DeleteVersionAfter: time.Hour, CustomMetadata: data{"owner": "me", "team": "us"},
	}))
	required := true
	ok(t, kv.PatchMetadata(ctx, "app/one", api.KVMetadataPatchInput{
		CASRequired: &required, CustomMetadata: data{"team": nil},
	}))
	metadata := must[*api.KVMetadata](t)(kv.GetMetadata(ctx, "app/one"))
	same(t, []any{metadata.CurrentVersion, metadata.MaxVersions, metadata.CASRequired}, []any{4, 7, true})
	same(t, metadata.CustomMetadata, data{"owner": "me"})
	same(t, metadata.DeleteVersionAfter, time.Hour)
	ok(t, kv.DeleteMetadata(ctx, "app/one"))
	if _, err := kv.Get(ctx, "app/one"); !errors.Is(err, api.ErrSecretNotFound) {
		t.Fatal(err)
	}
}

func TestPolicies(t *testing.T) {
	sys, mount := root(t).Sys(), engine(t, "1")
	text := fmt.Sprintf(`path "%s/a/*" { capabilities = ["create", "read", "list"] }`, mount)
	policy := policy(t, text)
	same(t, must[string](t)(sys.GetPolicy(policy)), text)
	if !slices.Contains(must[[]string](t)(sys.ListPolicies()), policy) {
		t.Fatal("the policy is not listed")
	}
	made := token(t, &api.TokenCreateRequest{Policies: []string{policy}})
	user, path := client(t, made.ClientToken), mount+"/a/b"
	want := []string{"create", "list", "read"}
	same(t, must[[]string](t)(sys.Capabilities(made.ClientToken, path)), want)
	same(t, must[[]string](t)(sys.CapabilitiesAccessor(made.Accessor, path)), want)
	same(t, must[[]string](t)(user.Sys().CapabilitiesSelf(path)), want)
	same(t, must[[]string](t)(user.Sys().CapabilitiesSelf("other")), []string{"deny"})
	same(t, must[[]string](t)(sys.CapabilitiesSelf(path)), []string{"root"})
	must[*api.Secret](t)(user.Logical().Write(path, data{"x": "y"}))
	_, err := user.Logical().Write(path, data{"x": "z"})
	refused(t, err, http.StatusForbidden, "permission denied")
	ok(t, sys.DeletePolicy(policy))
	same(t, must[string](t)(sys.GetPolicy(policy)), "")
	_, err = user.Logical().Read(path)
	refused(t, err, http.StatusForbidden, "permission denied")
}

func TestUserpass(t *testing.T) {
	ctx, mount, c := context.Background(), method(t, "userpass"), root(t)
	must[*api.Secret](t)(c.Logical().Write("auth/"+mount+"/users/ann", data{"password": "pw", "token_policies": "a"}))
	login := func(password string) (*api.Client, *api.Secret, error) {
		auth, err := userpass.NewUserpassAuth("ann", &userpass.Password{FromString: password},
			userpass.WithMountPath(mount))
		ok(t, err)
		user := client(t, "")
		secret, err := user.Auth().Login(ctx, auth)
		return user, secret, err
	}
	user, secret, err := login("pw")
	ok(t, err)
	same(t, must[[]string](t)(secret.TokenPolicies()), []string{"a", "default"})
	self := must[*api.Secret](t)(user.Auth().Token().LookupSelf())
	same(t, must[map[string]string](t)(self.TokenMetadata()), map[string]string{"username": "ann"})
	_, _, err = login("wrong")
	refused(t, err, http.StatusBadRequest, "invalid username or password")
}

// The Go client logs in in two requests: what the login owes, then the code.
func TestSecondFactor(t *testing.T) {
	ctx, mount, c := context.Background(), method(t, "userpass"), root(t)
	must[*api.Secret](t)(c.Logical().Write("auth/"+mount+"/users/ann", data{"password": "pw"}))
	auth, err := userpass.NewUserpassAuth("ann", &userpass.Password{FromString: "pw"}, userpass.WithMountPath(mount))
	ok(t, err)
	first := must[*api.Secret](t)(client(t, "").Auth().Login(ctx, auth))
	accessor := must[map[string]*api.AuthMount](t)(c.Sys().ListAuth())[mount+"/"].Accessor
	totp := must[*api.Secret](t)(c.Logical().Write("identity/mfa/method/totp", data{"issuer": "go", "period": 3600}))
	id := totp.Data["method_id"].(string)
	secret := must[*api.Secret](t)(c.Logical().Write("identity/mfa/method/totp/admin-generate",
		data{"method_id": id, "entity_id": first.Auth.EntityID}))
	rule := "identity/mfa/login-enforcement/" + mount
	must[*api.Secret](t)(c.Logical().Write(rule, data{"mfa_method_ids": id, "auth_method_accessors": accessor}))
	t.Cleanup(func() { _, _ = c.Logical().Delete(rule) })
	user := client(t, "")
	owed := must[*api.Secret](t)(user.Auth().MFALogin(ctx, auth))
	if owed.Auth.MFARequirement == nil || owed.Auth.ClientToken != "" {
		t.Fatalf("the login owes nothing: %+v", owed.Auth)
	}
	address := must[*url.URL](t)(url.Parse(secret.Data["url"].(string)))
	key := must[[]byte](t)(base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(address.Query().Get("secret")))
	tag := hmac.New(sha1.New, key)
	ok(t, binary.Write(tag, binary.BigEndian, time.Now().Unix()/3600))
	sum := tag.Sum(nil)
	at := sum[19] & 15
	code := fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff%1000000)
	payload := map[string]interface{}{id: []string{code}}
	paid := must[*api.Secret](t)(user.Auth().MFAValidate(ctx, owed, payload))
	same(t, paid.Auth.EntityID, first.Auth.EntityID)
	_, err = user.Auth().MFAValidate(ctx, owed, payload)
	refused(t, err, http.StatusBadRequest, "invalid request ID")
}

func TestApprole(t *testing.T) {
	ctx, mount, c := context.Background(), method(t, "approle"), root(t).Logical()
	base := "auth/" + mount + "/role/web"
	must[*api.Secret](t)(c.Write(base, data{"token_policies": []string{"a"}, "token_type": "batch"}))
	role := must[*api.Secret](t)(c.Read(base + "/role-id")).Data["role_id"].(string)
	wrapper := root(t)
	wrapper.SetWrappingLookupFunc(func(string, string) string { return "60s" })
	wrapped := must[*api.Secret](t)(wrapper.Logical().Write(base+"/secret-id", nil)).WrapInfo
	auth, err := approle.NewAppRoleAuth(role, &approle.SecretID{FromString: wrapped.Token},
		approle.WithMountPath(mount), approle.WithWrappingToken())
	ok(t, err)
	user := client(t, "")
	secret := must[*api.Secret](t)(user.Auth().Login(ctx, auth))
	same(t, []any{secret.Auth.Renewable, secret.Auth.Accessor}, []any{false, ""})
	same(t, secret.Auth.Metadata, map[string]string{"role_name": "web"})
	self := must[*api.Secret](t)(user.Auth().Token().LookupSelf())
	same(t, self.Data["type"], any("batch"))
}

func TestTokens(t *testing.T) {
	tokens := root(t).Auth().Token()
	made := token(t, &api.TokenCreateRequest{
		Policies: []string{"a"}, TTL: "1h", Metadata: map[string]string{"k": "v"}, DisplayName: "app",
	})
	same(t, made.LeaseDuration, 3600)
	same(t, made.Policies, []string{"a", "default"})
	user := client(t, made.ClientToken)
	found := must[*api.Secret](t)(tokens.Lookup(made.ClientToken))
	same(t, must[string](t)(found.TokenID()), made.ClientToken)
	same(t, found.Data["display_name"], any("token-app"))
	ttl := must[time.Duration](t)(found.TokenTTL())
	if ttl <= 0 || ttl > time.Hour {
		t.Fatal(ttl)
	}
	same(t, must[*api.Secret](t)(tokens.LookupAccessor(made.Accessor)).Data["id"], any(""))
	same(t, must[*api.Secret](t)(tokens.Renew(made.ClientToken, 7200)).Auth.LeaseDuration, 7200)
	same(t, must[*api.Secret](t)(user.Auth().Token().RenewSelf(1800)).Auth.LeaseDuration, 1800)
	same(t, must[*api.Secret](t)(tokens.RenewAccessor(made.Accessor, 60)).Auth.LeaseDuration, 60)
	orphan := must[*api.Secret](t)(tokens.CreateOrphan(&api.TokenCreateRequest{Policies: []string{"a"}})).Auth
	same(t, orphan.Orphan, true)
	ok(t, tokens.RevokeTree(made.ClientToken))
	_, err := user.Auth().Token().LookupSelf()
	refused(t, err, http.StatusForbidden, "permission denied")
	ok(t, tokens.RevokeAccessor(orphan.Accessor))
	_, err = tokens.Lookup(orphan.ClientToken)
	refused(t, err, http.StatusForbidden, "bad token")
	last := token(t, &api.TokenCreateRequest{Policies: []string{"a"}})
	ok(t, client(t, last.ClientToken).Auth().Token().RevokeSelf(""))
	_, err = tokens.LookupAccessor(last.Accessor)
	refused(t, err, http.StatusBadRequest, "invalid accessor")
}

// A watcher renews until the token's life may not grow further, and then ends without an error.
func TestLifetimeWatcher(t *testing.T) {
	made := token(t, &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "1s", ExplicitMaxTTL: "3s"})
	user := client(t, made.ClientToken)
	watcher := must[*api.LifetimeWatcher](t)(user.NewLifetimeWatcher(&api.LifetimeWatcherInput{
		Secret: &api.Secret{Auth: made}, Increment: 2,
	}))
	go watcher.Start()
	defer watcher.Stop()
	renewed, deadline := 0, time.After(patience)
	for {
		select {
		case r := <-watcher.RenewCh():
			same(t, r.Secret.Auth.ClientToken, made.ClientToken)
			renewed++
		case err := <-watcher.DoneCh():
			ok(t, err)
			if renewed == 0 {
				t.Fatal("ended without a renewal")
			}
			return
		case <-deadline:
			t.Fatal("the watcher does not end")
		}
	}
}

func TestWrapping(t *testing.T) {
	c, mount := root(t), engine(t, "1")
	must[*api.Secret](t)(c.Logical().Write(mount+"/a", data{"b": "c"}))
	wrapper := root(t)
	wrapper.SetWrappingLookupFunc(func(operation, path string) string { return "60s" })
	info := must[*api.Secret](t)(wrapper.Logical().Read(mount + "/a")).WrapInfo
	same(t, []any{info.TTL, info.CreationPath}, []any{60, mount + "/a"})
	if info.CreationTime.IsZero() {
		t.Fatal("no creation time")
	}
	same(t, must[*api.Secret](t)(c.Logical().Unwrap(info.Token)).Data, data{"b": "c"})
	_, err := c.Logical().Unwrap(info.Token)
	refused(t, err, http.StatusBadRequest, "wrapping token is not valid or does not exist")
	info = must[*api.Secret](t)(wrapper.Logical().Write("sys/wrapping/wrap", data{"x": "y"})).WrapInfo
	same(t, must[*api.Secret](t)(client(t, info.Token).Logical().Unwrap("")).Data, data{"x": "y"})
}

func TestAudit(t *testing.T) {
	sys, device := root(t).Sys(), name("audit")
	file := filepath.Join(t.TempDir(), "audit.log")
	ok(t, sys.EnableAuditWithOptions(device, &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": file},
	}))
	listed := must[map[string]*api.Audit](t)(sys.ListAudit())
	same(t, listed[device+"/"].Type, "file")
	hash := must[string](t)(sys.AuditHash(device, os.Getenv("VAULT_TOKEN")))
	ok(t, sys.DisableAudit(device))
	text := string(must[[]byte](t)(os.ReadFile(file)))
	if !strings.Contains(text, hash) {
		t.Fatal("the caller's token does not stand in the log as its hash")
	}
}

func TestLogical(t *testing.T) {
	c := root(t)
	if secret := must[*api.Secret](t)(c.Logical().List("secret/metadata/none")); secret != nil {
		t.Fatalf("%+v", secret)
	}
	_, err := c.Logical().Write("no-such-mount/a", data{"b": "c"})
	refused(t, err, http.StatusNotFound, "no handler for route")
	_, err = client(t, "").Logical().Read("secret/data/a")
	refused(t, err, http.StatusForbidden, "permission denied")
	_, err = c.Logical().Write("auth/token/no-such-path", data{"b": "c"})
	refused(t, err, http.StatusNotFound, "unsupported path")
	_, err = c.Logical().Delete("auth/token/create")
	refused(t, err, http.StatusMethodNotAllowed, "unsupported operation")
	path := "secret/data/" + name("n")
	must[*api.Secret](t)(c.Logical().Write(path, data{"data": data{"large": 9223372036854775807}}))
	read := must[*api.Secret](t)(c.Logical().ReadWithData(path, map[string][]string{"version": {"1"}}))
	same(t, fmt.Sprint(read.Data["data"].(data)["large"]), "9223372036854775807")
	status, err := c.Logical().ReadRaw("sys/health")
	ok(t, err)
	defer status.Body.Close()
	same(t, status.StatusCode, http.StatusOK)
}

func TestNamespaces(t *testing.T) {
	r, ns := root(t), name("tenant")
	made := must[*api.Secret](t)(r.Logical().Write("sys/namespaces/"+ns, data{"custom_metadata": data{"team": "x"}}))
	same(t, made.Data["path"], ns+"/")
	inside := r.WithNamespace(ns)
	ok(t, inside.Sys().Mount("kept", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}))
	must[*api.KVSecret](t)(inside.KVv2("kept").Put(context.Background(), "a", data{"b": "c"}))
	same(t, must[*api.KVSecret](t)(r.WithNamespace("/"+ns+"/").KVv2("kept").Get(context.Background(), "a")).Data, data{"b": "c"})
	ok(t, inside.Sys().PutPolicy("p", `path "kept/*" { capabilities = ["read"] }`))
	auth := must[*api.Secret](t)(inside.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"p"}})).Auth
	tenant := client(t, auth.ClientToken).WithNamespace(ns)
	same(t, must[*api.KVSecret](t)(tenant.KVv2("kept").Get(context.Background(), "a")).Data, data{"b": "c"})
	_, err := client(t, auth.ClientToken).Logical().Read("sys/mounts")
	refused(t, err, http.StatusForbidden, "permission denied")
	// the client takes a 404 to a read for an absent secret
	_, err = r.WithNamespace("none").Sys().CapabilitiesSelf("x")
	refused(t, err, http.StatusNotFound, "namespace not found")
	// an accessor leads to its namespace from everywhere, for who may
	same(t, must[*api.Secret](t)(r.Auth().Token().LookupAccessor(auth.Accessor)).Data["namespace_path"], ns+"/")
	must[*api.Secret](t)(r.Logical().Delete("sys/namespaces/" + ns))
	_, err = tenant.Sys().CapabilitiesSelf("x")
	refused(t, err, http.StatusNotFound, "namespace not found")
}

func TestIdentity(t *testing.T) {
	mount, c, who := method(t, "userpass"), root(t), name("who")
	accessor := must[map[string]*api.AuthMount](t)(c.Sys().ListAuth())[mount+"/"].Accessor
	write := func(path string, d data) *api.Secret { return must[*api.Secret](t)(c.Logical().Write(path, d)) }
	entity := write("identity/entity", data{"name": who, "policies": "a"}).Data["id"].(string)
	write("identity/entity-alias", data{"name": "ann", "canonical_id": entity, "mount_accessor": accessor})
	group := write("identity/group", data{"name": who, "member_entity_ids": []string{entity}, "policies": "b"})
	write("auth/"+mount+"/users/ann", data{"password": "pw"})
	auth, err := userpass.NewUserpassAuth("ann", &userpass.Password{FromString: "pw"}, userpass.WithMountPath(mount))
	ok(t, err)
	secret := must[*api.Secret](t)(client(t, "").Auth().Login(context.Background(), auth))
	same(t, secret.Auth.EntityID, entity)
	same(t, secret.Auth.IdentityPolicies, []string{"a", "b"})
	same(t, secret.Auth.Policies, []string{"a", "b", "default"})
	read := must[*api.Secret](t)(c.Logical().Read("identity/entity/name/" + who))
	same(t, read.Data["group_ids"], []any{group.Data["id"]})
	_, err = c.Logical().Write("identity/group", data{"name": who, "type": "external"})
	refused(t, err, http.StatusBadRequest, "group type cannot be changed")
}

func TestJWT(t *testing.T) {
	mount, c := method(t, "jwt"), root(t)
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must[[]byte](t)(x509.MarshalPKIXPublicKey(&key.PublicKey))})
	write := func(path string, d data) { must[*api.Secret](t)(c.Logical().Write("auth/"+mount+"/"+path, d)) }
	write("config", data{"jwt_validation_pubkeys": string(public), "default_role": "ci"})
	write("role/ci", data{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "us", "token_policies": "a",
		"token_type": "batch"})
	part := func(v any) string { return base64.RawURLEncoding.EncodeToString(must[[]byte](t)(json.Marshal(v))) }
	token := func(audience string) string {
		text := part(data{"alg": "ES256"}) + "." + part(data{"sub": "job", "aud": audience, "exp": time.Now().Unix() + 60})
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		ok(t, err)
		signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	login := func(jwt string) (*api.Secret, error) {
		return client(t, "").Logical().Write("auth/"+mount+"/login", data{"jwt": jwt})
	}
	secret := must[*api.Secret](t)(login(token("us")))
	same(t, secret.Auth.Metadata, map[string]string{"role": "ci"})
	if !strings.HasPrefix(secret.Auth.ClientToken, "hvb.") {
		t.Fatalf("no batch token: %q", secret.Auth.ClientToken)
	}
	_, err := login(token("them"))
	refused(t, err, http.StatusBadRequest, "audience claim does not match any bound audience")
}

// A cluster's TokenReview endpoint, as far as a login needs it.
func TestKubernetes(t *testing.T) {
	mount, c := method(t, "kubernetes"), root(t)
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		good := r.Header.Get("Authorization") == "Bearer reviewer"
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(data{"status": data{"authenticated": good,
			"user": data{"username": "system:serviceaccount:prod:web", "uid": "u1"}}})
	}))
	t.Cleanup(cluster.Close)
	write := func(path string, d data) { must[*api.Secret](t)(c.Logical().Write("auth/"+mount+"/"+path, d)) }
	write("config", data{"kubernetes_host": cluster.URL, "token_reviewer_jwt": "reviewer"})
	write("role/web", data{"bound_service_account_names": "web", "bound_service_account_namespaces": "prod", "token_policies": "a"})
	part := func(v any) string { return base64.RawURLEncoding.EncodeToString(must[[]byte](t)(json.Marshal(v))) }
	login := func(account string) (*api.Secret, error) {
		claims := data{"kubernetes.io": data{"namespace": "prod", "serviceaccount": data{"name": account, "uid": "u1"}}}
		jwt := part(data{"alg": "RS256"}) + "." + part(claims) + "." + part("the cluster's")
		return client(t, "").Logical().Write("auth/"+mount+"/login", data{"role": "web", "jwt": jwt})
	}
	secret := must[*api.Secret](t)(login("web"))
	same(t, secret.Auth.Metadata["service_account_namespace"], "prod")
	_, err := login("db")
	refused(t, err, http.StatusForbidden, "service account name not authorized")
}

func TestQuotasAndPasswordPolicies(t *testing.T) {
	mount, c, quota := engine(t, "1"), root(t), "sys/quotas/rate-limit/"+name("quota")
	must[*api.Secret](t)(c.Logical().Write(quota, data{"rate": 2, "path": mount, "interval": "1h"}))
	t.Cleanup(func() { _, _ = c.Logical().Delete(quota) })
	var err error
	for i := 0; i < 5 && err == nil; i++ {
		_, err = c.Logical().Write(mount+"/a", data{"b": "c"})
	}
	refused(t, err, http.StatusTooManyRequests, "rate limit quota exceeded")
	policy := "sys/policies/password/" + name("pw")
	must[*api.Secret](t)(c.Logical().Write(policy, data{"policy": "length = 12\nrule \"charset\" { charset = \"xyz\" }"}))
	made := must[*api.Secret](t)(c.Logical().Read(policy + "/generate")).Data["password"].(string)
	if len(made) != 12 || strings.Trim(made, "xyz") != "" {
		t.Fatalf("not by the policy: %q", made)
	}
}
