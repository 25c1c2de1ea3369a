# The third voter, beside the two Rust nodes of main.rs.

voters = [a, b, _app] = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

{:ok, _} = Tiebeam.start_link(name: App, join: voters, voters: voters, profile: :fast)
{:ok, leader, term} = Tiebeam.Leader.await(App, 60_000)
IO.puts("elected: one of the three: #{leader in voters}")

defmodule Import do
  # Only the leader does it. The token goes with what is done: who leads later has a greater one.
  def run, do: Tiebeam.Leader.with_leadership(App, fn token -> {:imported, token} end)

  # Leads, and imports: at once, or as soon as the others agree.
  def run_as_leader do
    with {:error, _} <- run() do
      Tiebeam.Leader.step_down(App, node())
      run_as_leader()
    end
  end
end

{:ok, {:imported, token}} = Import.run_as_leader()
IO.puts("app:     imported, under a token that is no less than the first term: #{token >= term}")

for rust <- [a, b] do
  {:error, _not_leader} = GenServer.call({:importer, rust}, :import)
  IO.puts("#{rust}: does not lead")
end

# Hands leadership over to a Rust node, which imports in its turn.
defmodule Wait do
  def until(fun), do: fun.() || (Process.sleep(10) && until(fun))
end

Wait.until(fn ->
  Tiebeam.Leader.step_down(App, a)

  with {:ok, text} <- GenServer.call({:importer, a}, :import),
       do: IO.puts("#{a}: #{text =~ "imported"}"),
       else: (_ -> false)
end)

IO.puts("app:     leads no more: #{Tiebeam.Leader.leader?(App) == false}")
