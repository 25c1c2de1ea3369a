# A BEAM node that owns its share of the carts, beside the Rust node of main.rs.

Code.require_file("carts.exs", __DIR__)

voters = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

children = [
  {Tiebeam, name: Shop, join: voters, voters: voters},
  {Tiebeam.Ring, cluster: Shop, name: "carts", partitions: 12, handler: {Carts, Shop}}
]

{:ok, _} = Supervisor.start_link(children, strategy: :rest_for_one)
IO.puts("#{node()} is up; Ctrl-C ends it")

# The supervisor ends with this process.
Process.sleep(:infinity)
