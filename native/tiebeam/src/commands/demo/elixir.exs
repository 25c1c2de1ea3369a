# The Elixir half of `tiebeam demo`: a node that the demo starts, and then asks over distribution.
#
# It ends with the demo, which holds the other end of its standard input.

defmodule Greeter do
  use GenServer

  def start_link(_argument), do: GenServer.start_link(__MODULE__, nil, name: :greeter)

  @impl true
  def init(state), do: {:ok, state}

  @impl true
  def handle_call({:greet, name}, {pid, _tag}, state) do
    {:reply, "Hello #{name} at #{node(pid)}!", state}
  end
end

defmodule Demo do
  @doc "Evaluates what the demo shows; the value as iex prints it."
  def eval(code) do
    {value, _binding} = Code.eval_string(code)
    inspect(value, width: 100)
  end
end

[rust] = Enum.map(System.argv(), &String.to_atom/1)

tiebeam = if Code.ensure_loaded?(Tiebeam), do: [{Tiebeam, name: Demo.Cluster, profile: :fast, join: [rust]}], else: []

{:ok, _supervisor} = Supervisor.start_link([Greeter | tiebeam], strategy: :one_for_one)
IO.puts("ready Elixir #{System.version()} on OTP #{System.otp_release()}")

Stream.repeatedly(fn -> IO.read(:line) end) |> Enum.find(&(not is_binary(&1)))
