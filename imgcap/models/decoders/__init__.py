"""Caption decoders: `init`, `step` and a teacher-forced `unroll` that share one step."""
