// Command limit is what the benchmarks do at the API server: they fill it, measure what a Go client gets out of it,
// and watch what the operator writes. Everything is in one program so that none of it costs a core that the operator
// is measured on.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"
)

type options struct {
	namespace string
	objects   int
	inFlight  int
	url       string
	listen    string
	timeout   time.Duration
}

var commands = map[string]func(context.Context, options) error{
	"seed":      seed,
	"reconcile": reconcile,
	"clear":     clearAll,
	"watch":     watchReady,
	"fresh":     fresh,
	"target":    target,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "limit: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no command: give seed, reconcile, clear, watch, fresh or target")
	}
	command, known := commands[arguments[0]]
	if !known {
		return fmt.Errorf("there is no command %q", arguments[0])
	}
	var o options
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	flags.StringVar(&o.namespace, "namespace", "bench", "where the objects are")
	flags.IntVar(&o.objects, "objects", 2000, "how many Connectors, with a Secret each")
	flags.IntVar(&o.inFlight, "in-flight", 32, "how many at the same time")
	flags.StringVar(&o.url, "url", "", "the target of every Connector")
	flags.StringVar(&o.listen, "listen", "", "where the target listens")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "when to give up")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	ctx := context.Background()
	if arguments[0] != "target" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	return command(ctx, o)
}

// say prints one line that the benchmarks read.
func say(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}

// target accepts and closes: to connect is all that a check of a webhook does.
func target(ctx context.Context, o options) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		_ = connection.Close()
	}
}
