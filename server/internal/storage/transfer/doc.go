// Package transfer moves all data from one storage backend to another: from
// the file that a broker began with to the server that replicas share, or back.
//
// It owns the move as a whole. The tables and their order are sqlstore's.
package transfer
