# A BEAM node with its copy of the bank, beside the Rust node of main.rs.

Code.require_file("bank.exs", __DIR__)

voters = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

children = [
  {Tiebeam, name: Town, join: voters, voters: voters},
  {Bank, cluster: Town, name: "bank", snapshot_every: 50}
]

{:ok, _} = Supervisor.start_link(children, strategy: :rest_for_one)
IO.puts("#{node()} is up; Ctrl-C ends it")

# The supervisor ends with this process.
Process.sleep(:infinity)
