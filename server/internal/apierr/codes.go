package apierr

import (
	"google.golang.org/grpc/codes"

	"github.com/stokerd/stoker/server/internal/reason"
)

// byReason gives each reason its status code. Clients decide by the reason; the
// code serves tools that know gRPC alone.
var byReason = map[reason.Reason]codes.Code{
	reason.Internal:       codes.Internal,
	reason.InvalidRequest: codes.InvalidArgument,
	reason.NotFound:       codes.NotFound,
	reason.AlreadyExists:  codes.AlreadyExists,
	reason.EtagMismatch:   codes.Aborted,
	reason.InUse:          codes.FailedPrecondition,
	reason.CallNotAllowed: codes.PermissionDenied,
	reason.RoleTooLow:     codes.PermissionDenied,
	reason.RateLimited:    codes.ResourceExhausted,

	reason.CertificateRequired:        codes.Unauthenticated,
	reason.CertificateIdentityInvalid: codes.Unauthenticated,
	reason.TrustDomainForeign:         codes.Unauthenticated,
	reason.CertificateExpired:         codes.Unauthenticated,
	reason.CertificateRevoked:         codes.Unauthenticated,
	reason.CertificateEndsTooSoon:     codes.FailedPrecondition,

	reason.TenantUnknown:   codes.Unauthenticated,
	reason.TenantDisabled:  codes.PermissionDenied,
	reason.AgentUnknown:    codes.Unauthenticated,
	reason.AgentDisabled:   codes.PermissionDenied,
	reason.ServiceUnknown:  codes.Unauthenticated,
	reason.OperatorUnknown: codes.Unauthenticated,
	reason.UserDisabled:    codes.PermissionDenied,

	reason.LoginRequired:  codes.Unauthenticated,
	reason.LoginMalformed: codes.Unauthenticated,
	reason.LoginRejected:  codes.Unauthenticated,
	reason.LoginDelayed:   codes.ResourceExhausted,
	reason.LoginBusy:      codes.ResourceExhausted,
	reason.TenantMismatch: codes.PermissionDenied,
	reason.PasswordWeak:   codes.InvalidArgument,

	reason.TokenInvalid:         codes.Unauthenticated,
	reason.TokenExpired:         codes.Unauthenticated,
	reason.TokenCertificateBind: codes.Unauthenticated,
	reason.SessionEnded:         codes.Unauthenticated,
	reason.PasswordChanged:      codes.Unauthenticated,

	reason.GrantUnknown:      codes.NotFound,
	reason.GrantDisabled:     codes.PermissionDenied,
	reason.GrantDeleted:      codes.PermissionDenied,
	reason.GrantChanged:      codes.Aborted,
	reason.GrantInvalid:      codes.FailedPrecondition,
	reason.CredentialRevoked: codes.PermissionDenied,
	reason.CredentialUnknown: codes.NotFound,
	reason.DelegationDenied:  codes.PermissionDenied,

	reason.STSRefused:         codes.FailedPrecondition,
	reason.STSThrottled:       codes.Unavailable,
	reason.STSUnavailable:     codes.Unavailable,
	reason.AuditUnavailable:   codes.Unavailable,
	reason.StorageUnavailable: codes.Unavailable,
	reason.KeyRotationBlocked: codes.FailedPrecondition,

	reason.Draining:          codes.Unavailable,
	reason.BrokerBusy:        codes.ResourceExhausted,
	reason.TooManyStreams:    codes.ResourceExhausted,
	reason.TooManyMessages:   codes.ResourceExhausted,
	reason.SubscribeFirst:    codes.InvalidArgument,
	reason.ReportTooFrequent: codes.ResourceExhausted,
	reason.StreamStalled:     codes.Aborted,

	reason.JoinTokenInvalid: codes.PermissionDenied,
	reason.JoinTokenExpired: codes.PermissionDenied,
	reason.JoinTokenUsed:    codes.PermissionDenied,
	reason.RequestUnsigned:  codes.InvalidArgument,
	reason.NoAuthority:      codes.FailedPrecondition,
}

// Code gives a reason's status code, Internal for one that is not listed.
func Code(r reason.Reason) codes.Code {
	if c, ok := byReason[r]; ok {
		return c
	}
	return codes.Internal
}
