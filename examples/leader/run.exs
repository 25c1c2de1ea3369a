# The third voter, beside the two Rust nodes of main.rs.

voters = [a, b, _app] = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

{:ok, _} = Tiebeam.start_link(name: App, join: voters, voters: voters)
{:ok, leader, term} = Tiebeam.Leader.await(App, 60_000)
IO.puts("elected: one of the three: #{leader in voters}")

defmodule Import do
  # Leads, and imports: at once, or as soon as the others agree. What is imported carries the token: who leads later has a
  # greater one.
  def run(fun) do
    case Tiebeam.Leader.with_leadership(App, fun) do
      {:ok, result} ->
        result

      {:error, _not_leader_or_lost} ->
        Tiebeam.Leader.step_down(App, node())
        run(fun)
    end
  end
end

# While this node leads the others do not. The function would be killed if it led no more.
{token, others} =
  Import.run(fn token -> {token, for(rust <- [a, b], do: GenServer.call({:importer, rust}, :import))} end)

IO.puts("app:     imported, under a token no less than the first one: #{token >= term}")
for {rust, {:error, _why}} <- Enum.zip([a, b], others), do: IO.puts("#{rust}: does not lead")

# Hands leadership over to a Rust node, which imports in its turn.
defmodule HandOver do
  def to(rust) do
    Tiebeam.Leader.step_down(App, rust)

    case GenServer.call({:importer, rust}, :import) do
      {:ok, token} -> token
      {:error, _not_yet} -> to(rust)
    end
  end
end

later = HandOver.to(a)
IO.puts("#{a}: imported, under a greater token: #{later > token}")
