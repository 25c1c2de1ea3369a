# Meets the Rust node of main.rs.

rust = :"hello@127.0.0.1"

IO.puts("ping:  #{inspect(:net_adm.ping(rust))}")
IO.puts("nodes: #{inspect(Node.list())}")
IO.puts("rpc:   #{inspect(:rpc.call(rust, :hello, :greet, ["Ada"]))}")
