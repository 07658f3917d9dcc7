package client_test

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

func reconnect(delay time.Duration) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Reconnect{
		Reconnect: &stokerv1.Reconnect{Delay: durationpb.New(delay)},
	}}
}

func revocation(grant, id string) *stokerv1.StreamCredentialsResponse {
	return &stokerv1.StreamCredentialsResponse{Message: &stokerv1.StreamCredentialsResponse_Revocation{
		Revocation: &stokerv1.Revocation{Grant: grant, CredentialId: id},
	}}
}
