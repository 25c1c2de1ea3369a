defmodule Tiebeam.Correlation do
  @moduledoc """
  Messages that carry the id of what they are a part of, so that the logs of several nodes can be read together.

  The id is in the metadata of the `Logger`, as `:correlation_id`. Where a request enters the system it gets one; what is sent because of it takes it
  along, from node to node:

      Tiebeam.Correlation.begin()
      GenServer.call(orders, Tiebeam.Correlation.wrap({:place, order}))

  Whoever receives it works under that id, and what it sends on has the same:

      def handle_call(message, _from, state) do
        Tiebeam.Correlation.unwrap(message, fn
          {:place, order} ->
            Logger.info("an order")
            GenServer.cast(state.stock, Tiebeam.Correlation.wrap({:reserve, order.item}))
            {:reply, :ok, state}
        end)
      end

  Nothing is wrapped by itself: a message stays what it was for receivers that know nothing of this. A wrapped one is
  `{:"$tiebeam_correlated", id, message}`, on a Rust node `Correlated`, which gives a span of `tracing`; the message may be a
  `Tiebeam.Message`. To see ids in the log, let the console show them: `config :logger, :console, metadata: [:correlation_id]`.

  A process that is started, as a `Task`, has metadata of its own: hand it a wrapped message.
  """

  require Logger

  @typedoc "An id: a string of 1 to 64 bytes."
  @type id :: String.t()

  @typedoc "A message with an id."
  @type t :: {:"$tiebeam_correlated", id, message :: term}

  # It is written into every line of the log.
  @max_bytes 64

  @doc """
  Gives the calling process an id, by default a new one, until another one or `unwrap/2` replaces it, and answers it. With `nil` it has none.

  The id of an HTTP request is one as well: `Tiebeam.Correlation.begin(Logger.metadata()[:request_id])` after `Plug.RequestId`. Raises `ArgumentError` for
  one that is empty, or longer than 64 bytes.

      iex> id = Tiebeam.Correlation.begin()
      iex> Tiebeam.Correlation.id() == id
      true
      iex> Tiebeam.Correlation.begin("order-7")
      "order-7"
  """
  @spec begin(id | nil) :: id | nil
  def begin(id \\ new()) do
    unless id == nil or id?(id),
      do: raise(ArgumentError, "an id is a string of 1 to #{@max_bytes} bytes, got: #{inspect(id)}")

    Logger.metadata(correlation_id: id)
    id
  end

  @doc "The id of the calling process, if it has one."
  @spec id() :: id | nil
  def id, do: Logger.metadata()[:correlation_id]

  @doc """
  The message with the id of the calling process; the message as it is if that has none.

      iex> Tiebeam.Correlation.begin("order-7")
      iex> Tiebeam.Correlation.wrap(:ship)
      {:"$tiebeam_correlated", "order-7", :ship}
  """
  @spec wrap(message) :: t | message when message: term
  def wrap(message) do
    id = id()
    if id?(id), do: {:"$tiebeam_correlated", id, message}, else: message
  end

  @doc """
  Calls `fun` with the message itself, under its id, and answers what that answers. Afterwards the calling process has the id that it had before. A
  message without an id is handled without one.

      iex> Tiebeam.Correlation.unwrap({:"$tiebeam_correlated", "order-7", :ship}, fn :ship -> Tiebeam.Correlation.id() end)
      "order-7"
      iex> Tiebeam.Correlation.unwrap(:ship, fn :ship -> Tiebeam.Correlation.id() end)
      nil
  """
  @spec unwrap(t | term, (message :: term -> answer)) :: answer when answer: term
  def unwrap(message, fun) when is_function(fun, 1) do
    before = id()

    {id, message} =
      case message do
        {:"$tiebeam_correlated", id, message} -> {if(id?(id), do: id), message}
        message -> {nil, message}
      end

    begin(id)

    try do
      fun.(message)
    after
      Logger.metadata(correlation_id: before)
    end
  end

  defp id?(id), do: is_binary(id) and byte_size(id) in 1..@max_bytes and String.valid?(id)

  defp new, do: Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)
end
