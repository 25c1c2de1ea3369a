defmodule Support.PoolWorker do
  @moduledoc "A worker of a pool: a call is answered `{node, request}`, as by the fixture of a Rust node."
  use GenServer

  def start_link(argument), do: GenServer.start_link(__MODULE__, argument)

  @doc "Starts a pool of them on this node, under a supervisor of OTP's own."
  def start_pool(options) do
    spec = Tiebeam.Pool.child_spec([{:child, {__MODULE__, nil}} | options])
    {:ok, _} = :supervisor.start_child(:kernel_safe_sup, spec)
    :ok
  end

  @impl true
  def init(argument), do: {:ok, argument}

  @impl true
  def handle_call(request, _from, state), do: {:reply, {node(), request}, state}
end
