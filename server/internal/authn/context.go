package authn

import "context"

// principalKey carries the caller of a call in its context.
type principalKey struct{}

// WithPrincipal remembers whom a call was authenticated as. Interceptors alone
// call it.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, &p)
}

// PrincipalFrom gives whom the call was authenticated as; ok is false if it was
// not.
func PrincipalFrom(ctx context.Context) (p Principal, ok bool) {
	shared, ok := SharedPrincipal(ctx)
	if !ok {
		return Principal{}, false
	}
	return *shared, true
}

// SharedPrincipal is PrincipalFrom for who keeps what it gives for long, which
// must not be changed.
func SharedPrincipal(ctx context.Context) (p *Principal, ok bool) {
	p, ok = ctx.Value(principalKey{}).(*Principal)
	return p, ok
}
