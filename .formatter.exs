[
  inputs: ["{mix,.formatter}.exs", "{lib,test,bin}/**/*.{ex,exs}", "native/*/*.ex", "examples/**/*.exs"],
  line_length: 110
]
