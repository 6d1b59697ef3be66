package main

import (
	"errors"

	"github.com/rs/zerolog"

	"sallyport/cmd/internal/config"
)

// kernel is the platform of the real daemon. The packet engine registers here.
var kernel = platform{
	fences: func() (fencer, error) { return nil, errors.New("this build has no route keeper") },
	engine: func(*config.Config, zerolog.Logger) (engine, error) {
		return nil, errors.New("this build has no packet engine")
	},
}
