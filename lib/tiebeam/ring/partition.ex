defmodule Tiebeam.Ring.Partition do
  @moduledoc false
  # A partition on its owner: the process in which the callbacks of a `Tiebeam.Ring` run. The runner of a slot, in the words of
  # `Tiebeam.Placement.Manager`, which passes calls on to it.

  use GenServer

  # How long the manager may take for a word, in milliseconds. It never waits for code of the user.
  @noted 1_000

  @enforce_keys [:manager, :module, :partition, :token, :state]
  defstruct @enforce_keys

  @doc "Starts it, linked to the caller, and does not wait for `on_own`."
  @spec start_link(module, argument :: term, Tiebeam.Ring.partition(), Tiebeam.Leader.token()) :: pid
  def start_link(module, argument, partition, token) do
    own = %__MODULE__{manager: self(), module: module, partition: partition, token: token, state: argument}
    {:ok, pid} = GenServer.start_link(__MODULE__, own)
    pid
  end

  @impl true
  def init(own), do: {:ok, own, {:continue, :own}}

  @impl true
  def handle_continue(:own, own) do
    case own.module.on_own(own.partition, own.token, own.state) do
      {:ok, state} ->
        send(own.manager, {:started, self()})
        {:noreply, %{own | state: state}}

      other ->
        {:stop, {:bad_return_value, other}, own}
    end
  end

  @impl true
  def handle_call({:ring_call, partition, key, request}, from, own) do
    case own.module.handle_call(partition, key, request, own.state) do
      {:reply, reply, state} -> {:reply, reply, %{own | state: state}}
      other -> fail(:error, {:bad_return_value, other}, [], from)
    end
  catch
    # The caller watches the manager, not this process.
    kind, reason -> fail(kind, reason, __STACKTRACE__, from)
  end

  defp fail(kind, reason, stacktrace, from) do
    GenServer.reply(from, {:error, {:failed, Exception.format_banner(kind, reason, stacktrace)}})
    :erlang.raise(kind, reason, stacktrace)
  end

  @impl true
  def handle_cast({:ring_cast, partition, key, request}, own) do
    {:noreply, state} = own.module.handle_cast(partition, key, request, own.state)
    {:noreply, %{own | state: state}}
  end

  @impl true
  def handle_info({:release, reason}, own) do
    own.module.on_release(own.partition, reason, own.state)
    # What it started ends with it.
    {:stop, :shutdown, own}
  end

  def handle_info(message, own) do
    {:noreply, state} = own.module.handle_info(own.partition, message, own.state)
    {:noreply, %{own | state: state}}
  end

  # Nothing that waits here is begun. The manager passes nothing on any more, and those who called look for the owner again.
  @impl true
  def terminate(:shutdown, _own), do: :ok

  def terminate(_reason, own) do
    send(own.manager, {:failing, self()})

    receive do
      {:failing, :noted} -> :ok
    after
      @noted -> :ok
    end

    refuse_all()
  end

  defp refuse_all do
    receive do
      {:"$gen_call", from, {:ring_call, _partition, _key, _request}} ->
        GenServer.reply(from, {:error, {:not_owner, nil}})
        refuse_all()
    after
      0 -> :ok
    end
  end
end
