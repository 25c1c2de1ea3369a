# Transfers money on all nodes at once, while the leader changes, and looks whether all have the same in the end.

Code.require_file("bank.exs", __DIR__)

voters = [a, b, _app] = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

{:ok, supervisor} =
  Supervisor.start_link([{Tiebeam, name: Town, join: voters, voters: voters}], strategy: :one_for_one)

{:ok, _leader, _term} = Tiebeam.Leader.await(Town, 60_000)

defmodule Bank.Client do
  # Commands go to whichever node's copy: a module on a BEAM, a process on a Rust node. Its answer is certain.
  def command(server, command) do
    {:ok, reply} = Tiebeam.StateMachine.command(server, command, timeout: 30_000)
    reply
  end

  # Once all have done as much, and know of a snapshot.
  def settled(servers) do
    infos = Enum.map(servers, &Tiebeam.StateMachine.info/1)

    if length(Enum.uniq_by(infos, & &1.commands)) == 1 and Enum.all?(infos, & &1.snapshot) do
      infos
    else
      Process.sleep(10)
      settled(servers)
    end
  end
end

beam = {Bank, a}
rust = {:bank, b}

for account <- ["alice", "bob"],
    server <- [beam, rust],
    do: :ok = Bank.Client.command(server, {:deposit, account, 500})

{:ok, alice} = Tiebeam.StateMachine.query(rust, {:balance, "alice"}, consistency: :linear)
IO.puts("alice has: #{alice}")
IO.puts("too much: #{Bank.Client.command(rust, {:transfer, "alice", "bob", 5000})}")

# A hundred transfers by each of the two, and the leader steps down meanwhile.
transfers = fn server, from, to ->
  Task.async(fn -> for _ <- 1..100, do: :ok = Bank.Client.command(server, {:transfer, from, to, 3}) end)
end

work = [transfers.(beam, "alice", "bob"), transfers.(rust, "bob", "alice")]
{:ok, _} = Tiebeam.Leader.step_down(Town, nil, timeout: 30_000)
Task.await_many(work, 120_000)

# This node comes late, and has what the others have: by a snapshot, and what came after it.
{:ok, _} = Supervisor.start_child(supervisor, {Bank, cluster: Town, name: "bank", snapshot_every: 50})
{:ok, total} = Bank.query(:total, consistency: :linear)
IO.puts("total: #{total}, alice: #{Bank.query({:balance, "alice"}) |> elem(1)}")
infos = Bank.Client.settled([beam, rust, Bank])
[commands] = infos |> Enum.map(& &1.commands) |> Enum.uniq()
same? = match?([_digest], infos |> Enum.map(& &1.digest) |> Enum.uniq())
IO.puts("commands on all three: #{commands}, the same state: #{same?}")
