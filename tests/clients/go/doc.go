// Package clients holds what a program written against the api module sees.
package clients
