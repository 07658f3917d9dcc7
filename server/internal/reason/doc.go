// Package reason holds the documented reasons for which Stoker refuses or
// fails, and the error that carries one.
//
// It owns the list: each reason's name, whether waiting helps, and a sentence
// for the error table. Domain packages return *Error; the API packages turn it
// into a status in apierr and nowhere else. It knows nothing of gRPC.
package reason
