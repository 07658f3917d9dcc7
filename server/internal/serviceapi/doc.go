// Package serviceapi translates DelegationService, and decides nothing.
package serviceapi
