// Package agentapi serves agents: CredentialService and SessionService.
//
// It owns the translation between the API's messages and the domain's types,
// and the way in which a call of StreamCredentials is received, sent to and
// ended. It decides nothing: who the caller is comes with the context, what
// they may have is for the packages it calls. Its errors are the domain's; an
// interceptor makes statuses of them.
package agentapi
