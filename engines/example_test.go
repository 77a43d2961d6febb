package engines_test

import (
	"context"
	"errors"
	"fmt"

	"couplet"
	"couplet/engines"
)

func ExampleOpen() {
	e, err := engines.Open("auto", couplet.Config{Loops: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Shutdown(context.Background())
	why, _ := engines.Choice(e)
	fmt.Println(len(e.Loops()), why != "")
	// Output: 2 true
}

func ExampleUnknownError() {
	_, err := engines.Open("turbo", couplet.Config{})
	var unknown *engines.UnknownError
	fmt.Println(errors.As(err, &unknown), unknown.Known[0])
	// Output: true auto
}
