// Loads a compose file as `docker compose` does, by the library behind it, and names its services.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions([]string{os.Args[1]}, cli.WithName("meshlib"))
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {
			fmt.Println(project.ServiceNames())
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
