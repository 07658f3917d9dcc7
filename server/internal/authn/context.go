package authn

import "context"

// principalKey carries the caller of a call in its context.
type principalKey struct{}

// WithPrincipal remembers whom a call was authenticated as. Interceptors alone
// call it.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom gives whom the call was authenticated as; ok is false if it was
// not.
func PrincipalFrom(ctx context.Context) (p Principal, ok bool) {
	p, ok = ctx.Value(principalKey{}).(Principal)
	return p, ok
}
