# Stands by for the Rust nodes of main.rs, and they for it.

defmodule Db do
  use GenServer

  def start_link(token), do: GenServer.start_link(__MODULE__, token, name: :db)

  @impl true
  def init(token), do: {:ok, token}

  @impl true
  def handle_call(:who, _from, token), do: {:reply, {"Elixir", token}, token}

  @doc "What the active node answers, as soon as it meets a condition: in which language it runs, and its token."
  def await(condition) do
    with {node, _token} <- Tiebeam.Singleton.whereis(App, "db"),
         {_language, _token} = answer <- ask(node),
         true <- condition.(answer) do
      answer
    else
      # Nobody is active, or another one.
      _ ->
        Process.sleep(10)
        await(condition)
    end
  end

  defp ask(node) do
    GenServer.call({:db, node}, :who)
  catch
    :exit, _ -> :gone
  end
end

voters = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

tiebeam = {Tiebeam, name: App, join: voters, voters: voters, session_ttl: 1_000}
{:ok, supervisor} = Supervisor.start_link([tiebeam], strategy: :rest_for_one)
{language, first} = Db.await(fn _ -> true end)
IO.puts("active in #{language}")

# From now on this node stands by as well.
singleton = {Tiebeam.Singleton, cluster: App, name: "db", child: &{Db, &1}, cooldown: 1_000}
{:ok, _} = Supervisor.start_child(supervisor, singleton)

# Its work ends first, then another node may take over: the other Rust node, or this one.
hand_over = fn hand_over, to ->
  Tiebeam.Singleton.step_down(App, "db")
  with {^to, token} <- Db.await(fn _ -> true end), do: token, else: (_ -> hand_over.(hand_over, to))
end

second = hand_over.(hand_over, "Elixir")
IO.puts("active in Elixir, under a greater token: #{second > first}")

third = hand_over.(hand_over, "Rust")
IO.puts("active in Rust, under a greater token: #{third > second}")

# Nobody says that this one is gone: its claim is over a second later.
{node, _token} = Tiebeam.Singleton.whereis(App, "db")
send({:crash, node}, :now)
{_language, fourth} = Db.await(fn {_language, token} -> token > third end)
IO.puts("killed; another one is active, under a greater token: #{fourth > third}")
