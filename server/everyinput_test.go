package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server"
	"github.com/stokerd/stoker/server/internal/apierr"
	"github.com/stokerd/stoker/server/internal/brokertest"
	"github.com/stokerd/stoker/server/internal/pki"
	"github.com/stokerd/stoker/server/internal/reason"
)

// hostile are the services whose every field is tried with bad input.
var hostile = []protoreflect.FullName{
	"stoker.v1.TenantService", "stoker.v1.UserService", "stoker.v1.AgentService", "stoker.v1.LocationService",
	"stoker.v1.GrantService", "stoker.v1.FleetService", "stoker.v1.AuditService", "stoker.v1.AccountService",
	"stoker.v1.DelegationService",
}

// goodRequests has a request for each of their methods that succeeds, in the
// order in which they are made: a new method is asked for here.
func goodRequests(t *testing.T, accessKeyID, token string) map[string]proto.Message {
	acme := func(name string) *stokerv1.Grant {
		return &stokerv1.Grant{
			Tenant: "acme", Name: name, Location: "main", Prefix: "acme/" + name + "/", Access: stokerv1.Access_ACCESS_ACTIONS,
			Actions: []string{"s3:GetObject"}, Lifetime: durationpb.New(time.Hour),
		}
	}
	moved := &stokerv1.Location{
		Name: "victim", Account: "main", Bucket: "victim-bucket-2", Region: "us-east-1", Endpoint: "https://s3.example.com",
		KmsKeyArn: "arn:aws:kms:us-east-1:111122223333:key/1",
	}
	request := certificateRequest(t)
	now := time.Now()
	return map[string]proto.Message{
		"TenantService/CreateTenant": &stokerv1.CreateTenantRequest{Tenant: &stokerv1.Tenant{Name: "fresh", DisplayName: "Fresh"}},
		"TenantService/GetTenant":    &stokerv1.GetTenantRequest{Name: "acme"},
		"TenantService/ListTenants":  &stokerv1.ListTenantsRequest{PageSize: 1},
		"TenantService/UpdateTenant": &stokerv1.UpdateTenantRequest{Tenant: &stokerv1.Tenant{Name: "acme", DisplayName: "x"}, UpdateMask: mask("display_name")},
		"TenantService/DeleteTenant": &stokerv1.DeleteTenantRequest{Name: "victim"},

		"UserService/CreateUser": &stokerv1.CreateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "fresh"}, Password: "correct horse battery"},
		"UserService/GetUser":    &stokerv1.GetUserRequest{Tenant: "acme", Login: "backup"},
		"UserService/ListUsers":  &stokerv1.ListUsersRequest{Tenant: "acme", PageSize: 1},
		"UserService/UpdateUser": &stokerv1.UpdateUserRequest{User: &stokerv1.User{Tenant: "acme", Login: "victim"}, UpdateMask: mask("password"), Password: "correct horse battery"},
		"UserService/DeleteUser": &stokerv1.DeleteUserRequest{Tenant: "acme", Login: "victim"},

		"AgentService/CreateAgent":           &stokerv1.CreateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "fresh"}},
		"AgentService/GetAgent":              &stokerv1.GetAgentRequest{Tenant: "acme", Name: "laptop"},
		"AgentService/ListAgents":            &stokerv1.ListAgentsRequest{Tenant: "acme", PageSize: 1},
		"AgentService/UpdateAgent":           &stokerv1.UpdateAgentRequest{Agent: &stokerv1.Agent{Tenant: "acme", Name: "victim", Disabled: true}, UpdateMask: mask("disabled")},
		"AgentService/InviteAgent":           &stokerv1.InviteAgentRequest{Tenant: "acme", Name: "laptop"},
		"AgentService/IssueAgentCertificate": &stokerv1.IssueAgentCertificateRequest{Tenant: "acme", Name: "laptop", CertificateRequest: request},
		"AgentService/DeleteAgent":           &stokerv1.DeleteAgentRequest{Tenant: "acme", Name: "victim"},

		"LocationService/CreateLocation": &stokerv1.CreateLocationRequest{Location: &stokerv1.Location{
			Name: "fresh", Account: "main", Bucket: "fresh-bucket", Region: "us-east-1", Endpoint: "https://s3.example.com",
			KmsKeyArn: "arn:aws:kms:us-east-1:111122223333:key/1",
		}},
		"LocationService/GetLocation":   &stokerv1.GetLocationRequest{Name: "main"},
		"LocationService/ListLocations": &stokerv1.ListLocationsRequest{PageSize: 1},
		"LocationService/UpdateLocation": &stokerv1.UpdateLocationRequest{
			Location: moved, UpdateMask: mask("account", "bucket", "region", "endpoint", "kms_key_arn"),
		},
		"LocationService/DeleteLocation": &stokerv1.DeleteLocationRequest{Name: "victim"},

		"GrantService/CreateGrant": &stokerv1.CreateGrantRequest{Grant: acme("fresh")},
		"GrantService/GetGrant":    &stokerv1.GetGrantRequest{Tenant: "acme", Name: "nightly"},
		"GrantService/ListGrants":  &stokerv1.GrantServiceListGrantsRequest{Tenant: "acme", PageSize: 1},
		"GrantService/UpdateGrant": &stokerv1.UpdateGrantRequest{Grant: acme("update"), UpdateMask: mask("access", "actions", "prefix", "location", "lifetime")},
		"GrantService/ExplainGrant": &stokerv1.ExplainGrantRequest{
			Tenant: "acme", Name: "nightly", Key: "acme/1", Actions: []string{"s3:GetObject"},
		},
		"GrantService/DeleteGrant": &stokerv1.DeleteGrantRequest{Tenant: "acme", Name: "victim"},

		"FleetService/ListStreams":     &stokerv1.ListStreamsRequest{PageSize: 1, Tenant: "acme", Agent: "laptop"},
		"FleetService/WatchEvents":     &stokerv1.WatchEventsRequest{SinceTime: timestamppb.New(now.Add(-time.Minute))},
		"FleetService/GetStatus":       &stokerv1.GetStatusRequest{},
		"FleetService/Diagnose":        &stokerv1.DiagnoseRequest{Tenant: "acme", Grant: "nightly"},
		"FleetService/ListRevocations": &stokerv1.ListRevocationsRequest{PageSize: 1},
		"FleetService/Revoke": &stokerv1.RevokeRequest{
			Target: &stokerv1.RevokeRequest_Agent{Agent: "acme/doomed"}, Reason: "a drill",
		},

		"AuditService/ListRecords": &stokerv1.ListRecordsRequest{
			PageSize: 1, AfterTime: timestamppb.New(now.Add(-time.Hour)), BeforeTime: timestamppb.New(now.Add(time.Hour)), Events: []string{"admin.created"},
		},
		"AuditService/WhoIs":  &stokerv1.WhoIsRequest{Credential: &stokerv1.WhoIsRequest_AccessKeyId{AccessKeyId: accessKeyID}},
		"AuditService/Verify": &stokerv1.VerifyRequest{},

		"AccountService/RotateAccountKey": &stokerv1.RotateAccountKeyRequest{Account: "main", DryRun: true, IgnoredReplicas: []string{"0198c0de-0000-7000-8000-000000000001"}},

		"DelegationService/IssueCredentials": &stokerv1.IssueCredentialsRequest{Tenant: "acme", Grant: "nightly", Reason: "x", MinLife: durationpb.New(time.Minute)},
		"DelegationService/StreamCredentials": &stokerv1.DelegationServiceStreamCredentialsRequest{
			Message: &stokerv1.DelegationServiceStreamCredentialsRequest_Delegate{Delegate: &stokerv1.Delegate{
				Tenant: "acme", Grant: "nightly", Reason: "x", Client: "test",
				Held: &stokerv1.HeldCredential{Grant: "nightly", Id: "0198c0de-0000-7000-8000-000000000001"},
			}},
		},
		"DelegationService/IntrospectSession": &stokerv1.IntrospectSessionRequest{AccessToken: token},
	}
}

// badInputs are values that no field of the kind takes.
func badInputs(f protoreflect.FieldDescriptor) map[string]func(protoreflect.Message) {
	set := func(v any) func(protoreflect.Message) {
		return func(m protoreflect.Message) {
			if f.IsList() {
				m.Mutable(f).List().Append(protoreflect.ValueOf(v))
				return
			}
			m.Set(f, protoreflect.ValueOf(v))
		}
	}
	switch {
	case f.Kind() == protoreflect.StringKind:
		return map[string]func(protoreflect.Message){
			"too long": set(strings.Repeat("a", 1<<16)), "a control character": set("a\nb"), "a climb": set("../*?${x}\x00"),
		}
	case f.Kind() == protoreflect.BytesKind:
		return map[string]func(protoreflect.Message){"too long": set(make([]byte, 1<<16)), "garbage": set([]byte("garbage"))}
	case f.Kind() == protoreflect.EnumKind:
		return map[string]func(protoreflect.Message){"unknown": set(protoreflect.EnumNumber(99))}
	case f.Kind() == protoreflect.Int32Kind:
		return map[string]func(protoreflect.Message){"negative": set(int32(-1))}
	case f.Kind() == protoreflect.MessageKind && f.Message().FullName() == "google.protobuf.Duration":
		return map[string]func(protoreflect.Message){
			"negative": set((&durationpb.Duration{Seconds: -1}).ProtoReflect()), "malformed": set((&durationpb.Duration{Seconds: 1, Nanos: -1}).ProtoReflect()),
		}
	case f.Kind() == protoreflect.MessageKind && f.Message().FullName() == "google.protobuf.Timestamp":
		return map[string]func(protoreflect.Message){"malformed": set((&timestamppb.Timestamp{Nanos: -1}).ProtoReflect())}
	case f.Kind() == protoreflect.MessageKind && f.Message().FullName() == "google.protobuf.FieldMask":
		return map[string]func(protoreflect.Message){
			"unknown path": set((&fieldmaskpb.FieldMask{Paths: []string{"no_such"}}).ProtoReflect()),
			"output":       set((&fieldmaskpb.FieldMask{Paths: []string{"id"}}).ProtoReflect()),
		}
	}
	return nil
}

// change is one bad input to one field of a request.
type change struct {
	field, what string
	request     proto.Message
}

// changes makes every bad input to every field of the request, those of the
// messages in it included.
func changes(request proto.Message) (all []change) {
	var walk func(path string, at func(protoreflect.Message) protoreflect.Message, m protoreflect.MessageDescriptor)
	walk = func(path string, at func(protoreflect.Message) protoreflect.Message, m protoreflect.MessageDescriptor) {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			name := strings.TrimPrefix(path+"."+string(f.Name()), ".")
			bad := badInputs(f)
			for what, spoil := range bad {
				c := proto.Clone(request)
				spoil(at(c.ProtoReflect()))
				all = append(all, change{name, what, c})
			}
			if bad == nil && f.Kind() == protoreflect.MessageKind && !f.IsList() {
				if at(request.ProtoReflect()).Has(f) {
					missing := proto.Clone(request)
					at(missing.ProtoReflect()).Clear(f)
					all = append(all, change{name, "missing", missing})
					walk(name, func(r protoreflect.Message) protoreflect.Message { return at(r).Mutable(f).Message() }, f.Message())
				}
			}
		}
	}
	walk("", func(m protoreflect.Message) protoreflect.Message { return m }, request.ProtoReflect().Descriptor())
	return all
}

// ask makes a call of any kind, and gives its end: of a stream that goes on,
// nil after its first message.
func ask(ctx context.Context, t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, request proto.Message) error {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	wantOK(t, err)
	method := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(ctx, method, request, kind.New().Interface())
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	// A welcome comes before what is refused later.
	for range 2 {
		if err := stream.RecvMsg(kind.New().Interface()); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil
}

// Every field of every call of the operators' services and of internal services
// is given what it cannot take: all is refused, with a reason that says that the
// request is wrong, and none of it changes anything. The calls and their fields
// come from the descriptors, so that none is forgotten.
func TestHostileInputToEveryField(t *testing.T) {
	b, password := acme(t, brokertest.Options{Configure: func(c *server.Config) {
		c.Services = map[string]server.ServiceConfig{"restorer": {Tenants: []string{"*"}, Access: []string{"backup", "restore"}}}
	}}, time.Hour)
	a := agent{conn: b.Dial(b.Agent("acme", "laptop")), tenant: "acme", name: "laptop", login: "backup", password: password}.session(t)
	got, err := a.fetch(t, "nightly")
	wantOK(t, err)
	for _, tenant := range []string{"victim", "other"} {
		b.Tenant(tenant)
	}
	b.User("acme", "victim")
	b.User("other", "stranger")
	for _, name := range []string{"victim", "doomed"} {
		b.Agent("acme", name)
	}
	b.Location(&stokerv1.Location{Name: "victim", Bucket: "victim-bucket"})
	for _, name := range []string{"victim", "update"} {
		b.Grant(&stokerv1.Grant{Tenant: "acme", Name: name, Location: "main", Prefix: "acme/" + name + "/", Access: stokerv1.Access_ACCESS_RESTORE}, time.Hour)
	}
	service := b.Dial(b.IssueService("restorer"))
	good := goodRequests(t, got[0].GetAccessKeyId(), a.token)
	tokens := pageTokens(t, b)
	tenant, err := stokerv1.NewTenantServiceClient(b.Admin).GetTenant(t.Context(), &stokerv1.GetTenantRequest{Name: "other"})
	wantOK(t, err)
	etag := tenant.GetTenant().GetEtag()
	var methods []protoreflect.MethodDescriptor
	for _, name := range hostile {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		wantOK(t, err)
		s := found.(protoreflect.ServiceDescriptor)
		for i := range s.Methods().Len() {
			methods = append(methods, s.Methods().Get(i))
		}
	}
	conn := func(m protoreflect.MethodDescriptor) *grpc.ClientConn {
		if m.Parent().Name() == "DelegationService" {
			return service
		}
		return b.Admin
	}
	for _, m := range methods {
		name := string(m.Parent().Name()) + "/" + string(m.Name())
		request := good[name]
		if request == nil {
			t.Errorf("%s has no good request here: make one", name)
			continue
		}
		t.Run(strings.ReplaceAll(name, "/", "."), func(t *testing.T) {
			for _, c := range slices.Concat(changes(request), wrongPages(request, string(m.Name()), tokens), foreign(request, m, etag)) {
				if !isHarmless(name, c) {
					refused(t, c, ask(t.Context(), t, conn(m), m, c.request))
				}
			}
			garbled(t, conn(m), m)
		})
	}
	// The requests were good, all but for what was changed in them. Deletions
	// and revocations come last.
	slices.SortStableFunc(methods, func(a, b protoreflect.MethodDescriptor) int { return lateness(a) - lateness(b) })
	for _, m := range methods {
		name := string(m.Parent().Name()) + "/" + string(m.Name())
		if err := ask(t.Context(), t, conn(m), m, good[name]); good[name] != nil && err != nil {
			t.Errorf("%s: a good request: %v", name, err)
		}
	}
}

func lateness(m protoreflect.MethodDescriptor) int {
	if n := string(m.Name()); strings.HasPrefix(n, "Delete") || n == "Revoke" {
		return 1
	}
	return 0
}

// refused checks the answer to a bad input.
func refused(t *testing.T, c change, err error) {
	t.Helper()
	switch why := apierr.Reason(status.Convert(err)); {
	case err == nil:
		t.Errorf("%s, %s: was taken", c.field, c.what)
	case slices.Contains([]reason.Reason{
		reason.InvalidRequest, reason.NotFound, reason.EtagMismatch, reason.PasswordWeak, reason.RequestUnsigned,
		reason.TenantUnknown, reason.GrantUnknown, reason.SubscribeFirst,
	}, why):
	default:
		t.Errorf("%s, %s: %v", c.field, c.what, err)
	}
}

// harmless are the inputs that are no bad ones, by field, or by method and
// field, and where not all of them by the input too, each with why.
var harmless = map[string]string{
	"id": "only answers carry it", "create_time": "only answers carry it", "update_time": "only answers carry it",
	"Create etag": "there is none before",

	"GrantService/UpdateGrant grant.login":                          "is not in the mask, and cannot be",
	"GrantService/ExplainGrant key a climb":                         "a key may be anything",
	"GrantService/ExplainGrant key a control character":             "a key may be anything",
	"DelegationService/StreamCredentials delegate.held missing":     "a service need not hold one",
	"DelegationService/StreamCredentials delegate.held.expire_time": "the broker goes by its own record",
	"DelegationService/IntrospectSession access_token":              "what is wrong with a token is the answer",
}

func isHarmless(method string, c change) bool {
	last := c.field[strings.LastIndexByte(c.field, '.')+1:]
	keys := []string{last, method + " " + c.field, method + " " + c.field + " " + c.what}
	if strings.Contains(method, "/Create") {
		keys = append(keys, "Create "+last)
	}
	return slices.ContainsFunc(keys, func(k string) bool { return harmless[k] != "" })
}

// foreign are the request with another tenant's name beside what is the first
// one's, and with the etag of something else.
func foreign(request proto.Message, m protoreflect.MethodDescriptor, etag string) (all []change) {
	method := string(m.Name())
	var walk func(path string, at func(protoreflect.Message) protoreflect.Message)
	walk = func(path string, at func(protoreflect.Message) protoreflect.Message) {
		at(request.ProtoReflect()).Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if f.Kind() == protoreflect.MessageKind && !f.IsList() {
				walk(path+string(f.Name())+".", func(r protoreflect.Message) protoreflect.Message { return at(r).Mutable(f).Message() })
			}
			names := f.Kind() == protoreflect.StringKind && !f.IsList()
			if makes := strings.HasPrefix(method, "Create") || strings.HasPrefix(method, "List") || method == "InviteAgent"; names && !makes {
				if name := strings.TrimPrefix(v.String(), "acme"); name != v.String() && (name == "" && f.Name() == "tenant" || strings.HasPrefix(name, "/") && f.Name() == "agent") {
					c := proto.Clone(request)
					at(c.ProtoReflect()).Set(f, protoreflect.ValueOfString("other"+name))
					all = append(all, change{path + string(f.Name()), "another tenant's", c})
				}
			}
			return true
		})
		if f := at(request.ProtoReflect()).Descriptor().Fields().ByName("etag"); f != nil {
			c := proto.Clone(request)
			at(c.ProtoReflect()).Set(f, protoreflect.ValueOfString(etag))
			all = append(all, change{path + "etag", "of something else", c})
		}
	}
	walk("", func(m protoreflect.Message) protoreflect.Message { return m })
	return all
}

// pageTokens has a page token of several lists, by the list's call.
func pageTokens(t *testing.T, b *brokertest.Broker) map[string]string {
	t.Helper()
	tenants, err := stokerv1.NewTenantServiceClient(b.Admin).ListTenants(t.Context(), &stokerv1.ListTenantsRequest{PageSize: 1})
	wantOK(t, err)
	users, err := stokerv1.NewUserServiceClient(b.Admin).ListUsers(t.Context(), &stokerv1.ListUsersRequest{Tenant: "acme", PageSize: 1})
	wantOK(t, err)
	others, err := stokerv1.NewAgentServiceClient(b.Admin).ListAgents(t.Context(), &stokerv1.ListAgentsRequest{Tenant: "acme", PageSize: 1})
	wantOK(t, err)
	records, err := stokerv1.NewAuditServiceClient(b.Admin).ListRecords(t.Context(), &stokerv1.ListRecordsRequest{PageSize: 1})
	wantOK(t, err)
	return map[string]string{
		"ListTenants": tenants.GetNextPageToken(), "ListUsers": users.GetNextPageToken(), "ListAgents": others.GetNextPageToken(),
		"ListRecords": records.GetNextPageToken(),
	}
}

// wrongPages are the request with page tokens and cursors of other lists, and
// with altered ones.
func wrongPages(request proto.Message, method string, tokens map[string]string) (all []change) {
	for _, field := range []protoreflect.Name{"page_token", "cursor"} {
		f := request.ProtoReflect().Descriptor().Fields().ByName(field)
		if f == nil {
			continue
		}
		for of, token := range tokens {
			spoilt := map[string]string{"an altered token": token[:len(token)-2] + "AA", "a cut token": token[:len(token)/2]}
			if of != method {
				spoilt["the token of "+of] = token
			}
			for what, value := range spoilt {
				c := proto.Clone(request)
				if since := c.ProtoReflect().Descriptor().Fields().ByName("since_time"); since != nil {
					c.ProtoReflect().Clear(since)
				}
				c.ProtoReflect().Set(f, protoreflect.ValueOfString(value))
				all = append(all, change{string(field), what, c})
			}
		}
	}
	return all
}

// Of operators who make the same change at once, on what they have all seen,
// exactly one is heard, whatever the resource; the others learn why. The calls
// come from the descriptors.
func TestOperatorsAtOnceEverywhere(t *testing.T) {
	b, _ := acme(t, brokertest.Options{}, time.Hour)
	b.Tenant("victim")
	b.User("acme", "victim")
	b.Agent("acme", "victim")
	b.Location(&stokerv1.Location{Name: "victim", Bucket: "victim-bucket"})
	for _, name := range []string{"victim", "update"} {
		b.Grant(&stokerv1.Grant{Tenant: "acme", Name: name, Location: "main", Prefix: "acme/" + name + "/", Access: stokerv1.Access_ACCESS_RESTORE}, time.Hour)
	}
	good := goodRequests(t, "", "")
	var calls []protoreflect.MethodDescriptor
	for _, name := range hostile {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		wantOK(t, err)
		s := found.(protoreflect.ServiceDescriptor)
		for _, verb := range []string{"Create", "Update", "Delete"} {
			for i := range s.Methods().Len() {
				if m := s.Methods().Get(i); strings.HasPrefix(string(m.Name()), verb) {
					calls = append(calls, m)
				}
			}
		}
	}
	if len(calls) != 15 {
		t.Errorf("%d calls create, update or delete", len(calls))
	}
	// What contains the others goes last.
	slices.SortStableFunc(calls, func(a, b protoreflect.MethodDescriptor) int { return lateness(a) - lateness(b) })
	for _, m := range calls {
		t.Run(string(m.Name()), func(t *testing.T) {
			request := proto.Clone(good[string(m.Parent().Name())+"/"+string(m.Name())])
			want := []reason.Reason{reason.AlreadyExists}
			if !strings.HasPrefix(string(m.Name()), "Create") {
				want = []reason.Reason{reason.EtagMismatch, reason.NotFound}
				seen(t, b, m, request.ProtoReflect())
			}
			const operators = 4
			errs := make([]error, operators)
			var all sync.WaitGroup
			for i := range errs {
				all.Go(func() { errs[i] = ask(t.Context(), t, b.Admin, m, request) })
			}
			all.Wait()
			heard := 0
			for _, err := range errs {
				if err == nil {
					heard++
				} else if why := apierr.Reason(status.Convert(err)); !slices.Contains(want, why) {
					t.Error(err)
				}
			}
			if heard != 1 {
				t.Errorf("%d of %d were heard", heard, operators)
			}
		})
	}
}

// seen puts the etag of the resource as it is now into a request to change it.
func seen(t *testing.T, b *brokertest.Broker, m protoreflect.MethodDescriptor, request protoreflect.Message) {
	t.Helper()
	service := m.Parent().(protoreflect.ServiceDescriptor)
	noun := strings.TrimSuffix(string(service.Name()), "Service")
	get := service.Methods().ByName(protoreflect.Name("Get" + noun))
	named := request
	if f := request.Descriptor().Fields().ByName(protoreflect.Name(strings.ToLower(noun))); f != nil {
		named = request.Mutable(f).Message()
	}
	asked, err := protoregistry.GlobalTypes.FindMessageByName(get.Input().FullName())
	wantOK(t, err)
	answered, err := protoregistry.GlobalTypes.FindMessageByName(get.Output().FullName())
	wantOK(t, err)
	question, answer := asked.New(), answered.New()
	for i := range get.Input().Fields().Len() {
		f := get.Input().Fields().Get(i)
		question.Set(f, named.Get(named.Descriptor().Fields().ByName(f.Name())))
	}
	wantOK(t, b.Admin.Invoke(t.Context(), fmt.Sprintf("/%s/%s", service.FullName(), get.Name()), question.Interface(), answer.Interface()))
	found := answer.Get(answer.Descriptor().Fields().Get(0)).Message()
	named.Set(named.Descriptor().Fields().ByName("etag"), found.Get(found.Descriptor().Fields().ByName("etag")))
}

// wireBytes is a message as it is on the wire.
type wireBytes struct{ bytes []byte }

// wireCodec sends what no message is.
type wireCodec struct{}

func (wireCodec) Marshal(v any) ([]byte, error) { return v.(*wireBytes).bytes, nil }

func (wireCodec) Unmarshal([]byte, any) error { return nil }

func (wireCodec) Name() string { return "proto" }

// garbled sends bytes that are no message, and a text that is no UTF-8 in each
// field: the wire's own types are checked before any of ours.
func garbled(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) {
	t.Helper()
	bad := [][]byte{{0xff, 0xff, 0xff}}
	for i := range m.Input().Fields().Len() {
		if f := m.Input().Fields().Get(i); f.Kind() == protoreflect.StringKind {
			bad = append(bad, []byte{byte(f.Number()<<3 | 2), 2, 0xc3, 0x28})
		}
	}
	for _, b := range bad {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()), grpc.ForceCodec(wireCodec{}))
		if err == nil {
			if err = stream.SendMsg(&wireBytes{b}); err == nil || errors.Is(err, io.EOF) {
				_ = stream.CloseSend()
				err = stream.RecvMsg(&wireBytes{})
			}
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the bytes %x were taken", b)
		}
		cancel()
	}
}

func certificateRequest(t *testing.T) []byte {
	t.Helper()
	_, request, err := pki.NewRequest()
	wantOK(t, err)
	return request
}
