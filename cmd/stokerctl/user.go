package main

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

type userCommands struct {
	Create   userCreate   `cmd:"" help:"Add a user. The password comes from a prompt, from standard input, or from the broker."`
	Get      userGet      `cmd:"" help:"Show one user."`
	List     userList     `cmd:"" help:"List a tenant's users by login."`
	Update   userUpdate   `cmd:"" help:"Enable or disable a user."`
	Password userPassword `cmd:"" help:"Set a user's password, and end the user's sessions and streams."`
	Delete   userDelete   `cmd:"" help:"Remove a user with the grants that are the user's alone, and end its streams."`
}

var userColumns = append([]column[*stokerv1.User]{
	{title: "USER", value: func(u *stokerv1.User) string { return u.GetLogin() + "@" + u.GetTenant() }},
	{title: "STATE", value: stateOf[*stokerv1.User]},
}, common[*stokerv1.User]()...)

type userCreate struct {
	User    login `arg:"" name:"login@tenant" help:"The login is up to 64 lower-case letters, digits, dots, dashes and underscores."`
	Disable bool  `help:"Issue nothing to it for now."`
	newPassword
}

func (c *userCreate) Run(a *api) error {
	password, err := c.read(a.terminal)
	if err != nil {
		return err
	}
	r, err := a.users.CreateUser(a.ctx, &stokerv1.CreateUserRequest{
		User: &stokerv1.User{Tenant: c.User.tenant, Login: c.User.login, Disabled: c.Disable}, Password: password,
	})
	if err != nil {
		return err
	}
	return a.donePassword(r, r.GetGeneratedPassword(), "created user %s", c.User)
}

// donePassword says what was done, and the password if the broker made one:
// it is not to be had a second time.
func (a *api) donePassword(answer proto.Message, generated, format string, args ...any) error {
	if generated != "" {
		format += "\npassword: %s"
		args = append(args, generated)
	}
	return a.done(answer, format, args...)
}

type userGet struct {
	User login `arg:"" name:"login@tenant"`
}

func (c *userGet) Run(a *api) error {
	r, err := a.users.GetUser(a.ctx, &stokerv1.GetUserRequest{Tenant: c.User.tenant, Login: c.User.login})
	if err != nil {
		return err
	}
	return show(a.output, userColumns, r.GetUser())
}

type userList struct {
	Tenant string `arg:""`
}

func (c *userList) Run(a *api) error {
	found, err := a.allUsers(c.Tenant)
	if err != nil {
		return err
	}
	return showList(a.output, userColumns, found)
}

func (a *api) allUsers(tenant string) ([]*stokerv1.User, error) {
	return all(func(token string) ([]*stokerv1.User, string, error) {
		r, err := a.users.ListUsers(a.ctx, &stokerv1.ListUsersRequest{Tenant: tenant, PageSize: pageSize, PageToken: token})
		return r.GetUsers(), r.GetNextPageToken(), err
	})
}

type userUpdate struct {
	User login `arg:"" name:"login@tenant"`
	switching
	unchanged
}

func (c *userUpdate) Run(a *api) error {
	var e edit
	u := &stokerv1.User{Tenant: c.User.tenant, Login: c.User.login, Etag: c.Etag, Disabled: e.disabled(c.switching)}
	mask, err := e.paths()
	if err != nil {
		return err
	}
	r, err := a.users.UpdateUser(a.ctx, &stokerv1.UpdateUserRequest{User: u, UpdateMask: mask})
	if err != nil {
		return err
	}
	return a.done(r.GetUser(), "updated user %s", c.User)
}

type userPassword struct {
	User login `arg:"" name:"login@tenant"`
	newPassword
}

func (c *userPassword) Run(a *api) error {
	password, err := c.read(a.terminal)
	if err != nil {
		return err
	}
	r, err := a.users.UpdateUser(a.ctx, &stokerv1.UpdateUserRequest{
		User: &stokerv1.User{Tenant: c.User.tenant, Login: c.User.login}, Password: password,
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"password"}},
	})
	if err != nil {
		return err
	}
	return a.donePassword(r, r.GetGeneratedPassword(), "changed the password of user %s", c.User)
}

type userDelete struct {
	User login `arg:"" name:"login@tenant"`
	unchanged
}

func (c *userDelete) Run(a *api) error {
	if err := a.confirm("delete user %s with its own grants", c.User); err != nil {
		return err
	}
	r, err := a.users.DeleteUser(a.ctx, &stokerv1.DeleteUserRequest{Tenant: c.User.tenant, Login: c.User.login, Etag: c.Etag})
	if err != nil {
		return err
	}
	return a.done(r, "deleted user %s", c.User)
}
