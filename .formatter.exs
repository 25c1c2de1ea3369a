[
  inputs: ["{mix,.formatter}.exs", "{lib,mix,test}/**/*.{ex,exs}", "examples/**/*.exs"],
  line_length: 110
]
