package adminapi

import (
	"context"
	"fmt"
	"strconv"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
	"github.com/stokerd/stoker/server/internal/authn"
	"github.com/stokerd/stoker/server/internal/message"
	"github.com/stokerd/stoker/server/internal/secret"
	"github.com/stokerd/stoker/server/internal/storage"
)

type users struct {
	stokerv1.UnsafeUserServiceServer
	*API
}

// userKind is of the users of one tenant. The password shows as its version
// alone.
func (a *API) userKind(tenant storage.Tenant) kind[storage.User] {
	return kind[storage.User]{
		noun: "user",
		meta: func(u *storage.User) *storage.Meta { return &u.Meta },
		name: func(u storage.User) string { return u.Login + "@" + tenant.Name },
		about: func(u storage.User, r *storage.AuditRecord) {
			r.TenantID, r.Tenant, r.UserID, r.Login = tenant.ID, tenant.Name, u.ID, u.Login
		},
		values: func(u storage.User) map[string]string {
			return map[string]string{
				"disabled":         strconv.FormatBool(u.Disabled),
				"password_version": strconv.FormatInt(u.PasswordVersion, 10),
			}
		},
		get: a.Store.GetUser, create: a.Store.CreateUser, update: a.Store.UpdateUser, remove: a.Store.DeleteUser,
	}
}

// findUser looks a user up in a directory that was synced.
func (a *API) findUser(tenant storage.Tenant, field, login string) (storage.User, error) {
	login = canonicalLogin(login)
	if err := loginForm.check(field, login); err != nil {
		return storage.User{}, err
	}
	u, ok := a.Directory.UserByLogin(tenant.ID, login)
	if !ok {
		return u, unknown("user", login+"@"+tenant.Name)
	}
	return u, nil
}

func (s users) message(tenant storage.Tenant, u storage.User) *stokerv1.User {
	return &stokerv1.User{
		Tenant: tenant.Name, Login: u.Login, Disabled: u.Disabled,
		Id: u.ID, Etag: s.userKind(tenant).etag(u), CreateTime: message.Time(u.CreatedAt), UpdateTime: message.Time(u.UpdatedAt),
	}
}

// password checks a user's new password, or makes one where none is given.
// generated is set in that case alone.
func (s users) password(ctx context.Context, tenant storage.Tenant, login, given string) (hash, generated string, err error) {
	password := secret.New(given)
	if given == "" {
		if password, err = authn.Generate(); err != nil {
			return "", "", fmt.Errorf("generate a password: %w", err)
		}
		generated = password.Reveal()
	} else if err := authn.CheckStrength(login, tenant.Name, password); err != nil {
		return "", "", err
	}
	hash, err = s.Passwords.Hash(ctx, password)
	return hash, generated, err
}

// CreateUser implements stokerv1.UserServiceServer.
func (s users) CreateUser(ctx context.Context, r *stokerv1.CreateUserRequest) (*stokerv1.CreateUserResponse, error) {
	given := r.GetUser()
	if given == nil {
		return nil, invalid("user", "is missing")
	}
	login := canonicalLogin(given.GetLogin())
	if err := loginForm.check("user.login", login); err != nil {
		return nil, err
	}
	tenant, err := s.tenant(ctx, "user.tenant", given.GetTenant())
	if err != nil {
		return nil, err
	}
	k := s.userKind(tenant)
	u := storage.User{TenantID: tenant.ID, Login: login, Disabled: given.GetDisabled(), PasswordVersion: 1}
	if _, taken := s.Directory.UserByLogin(tenant.ID, login); taken {
		// Found here before a hash is computed; the store would refuse it too.
		return nil, k.explain(u, storage.ErrExists)
	}
	var generated string
	if u.PasswordHash, generated, err = s.password(ctx, tenant, login, r.GetPassword()); err != nil {
		return nil, err
	}
	if u, err = create(ctx, s.API, k, u); err != nil {
		return nil, err
	}
	return &stokerv1.CreateUserResponse{User: s.message(tenant, u), GeneratedPassword: generated}, nil
}

// find looks up a tenant and one of its users.
func (s users) find(ctx context.Context, prefix, tenant, login string) (storage.Tenant, storage.User, error) {
	t, err := s.tenant(ctx, prefix+"tenant", tenant)
	if err != nil {
		return t, storage.User{}, err
	}
	u, err := s.findUser(t, prefix+"login", login)
	return t, u, err
}

// GetUser implements stokerv1.UserServiceServer.
func (s users) GetUser(ctx context.Context, r *stokerv1.GetUserRequest) (*stokerv1.GetUserResponse, error) {
	t, u, err := s.find(ctx, "", r.GetTenant(), r.GetLogin())
	if err != nil {
		return nil, err
	}
	return &stokerv1.GetUserResponse{User: s.message(t, u)}, nil
}

// ListUsers implements stokerv1.UserServiceServer.
func (s users) ListUsers(ctx context.Context, r *stokerv1.ListUsersRequest) (*stokerv1.ListUsersResponse, error) {
	t, err := s.tenant(ctx, "tenant", r.GetTenant())
	if err != nil {
		return nil, err
	}
	found, next, err := readPage(ctx, s.API, list{"users", t.ID}, page{r.GetPageSize(), r.GetPageToken()},
		within(t.ID, s.Store.ListUsers), func(u storage.User) string { return u.Login },
		sure(func(u storage.User) *stokerv1.User { return s.message(t, u) }))
	if err != nil {
		return nil, err
	}
	return &stokerv1.ListUsersResponse{Users: found, NextPageToken: next}, nil
}

// UpdateUser implements stokerv1.UserServiceServer.
func (s users) UpdateUser(ctx context.Context, r *stokerv1.UpdateUserRequest) (*stokerv1.UpdateUserResponse, error) {
	given := r.GetUser()
	if given == nil {
		return nil, invalid("user", "is missing")
	}
	chosen, err := readMask(r.GetUpdateMask(), "disabled", "password")
	if err != nil {
		return nil, err
	}
	if len(r.GetUpdateMask().GetPaths()) == 0 && r.GetPassword() == "" {
		delete(chosen, "password")
	}
	if !chosen["password"] && r.GetPassword() != "" {
		return nil, invalid("password", "is given and update_mask does not name it; add it there, or leave it out")
	}
	t, known, err := s.find(ctx, "user.", given.GetTenant(), given.GetLogin())
	if err != nil {
		return nil, err
	}
	var hash, generated string
	u, err := update(ctx, s.API, s.userKind(t), known, given.GetEtag(), func(u storage.User) (storage.User, error) {
		take(chosen, "disabled", &u.Disabled, given.GetDisabled())
		if !chosen["password"] {
			return u, nil
		}
		if hash == "" {
			var err error
			if hash, generated, err = s.password(ctx, t, u.Login, r.GetPassword()); err != nil {
				return u, err
			}
		}
		u.PasswordHash = hash
		u.PasswordVersion++
		return u, nil
	})
	if err != nil {
		return nil, err
	}
	return &stokerv1.UpdateUserResponse{User: s.message(t, u), GeneratedPassword: generated}, nil
}

// DeleteUser implements stokerv1.UserServiceServer.
func (s users) DeleteUser(ctx context.Context, r *stokerv1.DeleteUserRequest) (*stokerv1.DeleteUserResponse, error) {
	t, u, err := s.find(ctx, "", r.GetTenant(), r.GetLogin())
	if err != nil {
		return nil, err
	}
	if err := remove(ctx, s.API, s.userKind(t), u, r.GetEtag()); err != nil {
		return nil, err
	}
	return &stokerv1.DeleteUserResponse{}, nil
}
