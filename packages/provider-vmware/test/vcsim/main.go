// Serves govmomi's simulator of vCenter, another team's work, until standard input ends. It prints one line of JSON: where
// it listens and how to log in. The program vcsim of the same library cannot be installed by the Go module proxy.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator"
)

func main() {
	machines := flag.Int("vm", 2, "machines for each resource pool")
	esx := flag.Bool("esx", false, "a host by itself instead of a vCenter")
	secure := flag.Bool("tls", true, "HTTPS")
	username := flag.String("username", "user", "who may log in")
	password := flag.String("password", "pass", "the password")
	flag.Parse()

	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	}
	model.Machine = *machines
	check(model.Create())
	defer model.Remove()
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*username, *password)}
	if *secure {
		model.Service.TLS = new(tls.Config)
	}
	model.Service.RegisterEndpoints = true
	server := model.Service.NewServer()
	defer server.Close()

	described, err := json.Marshal(map[string]string{
		"url":      server.URL.Scheme + "://" + server.URL.Host,
		"username": *username,
		"password": *password,
	})
	check(err)
	fmt.Println(string(described))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
