defmodule Tiebeam.Message do
  @moduledoc """
  Messages that say of what kind and version they are, so that nodes of different releases can talk: BEAM and Rust alike.

  Plain terms need none of this; a Rust node reads and writes them by serde. A message in an envelope is
  `{:"$tiebeam_message", tag, version, payload}`, which a Rust node knows as `Versioned`.

      defmodule Orders.Place do
        use Tiebeam.Message, tag: "orders.place", version: 2, from: 1

        # Version 1 was the item alone. Each clause lifts a payload by one version.
        @impl true
        def migrate(1, item), do: {:ok, %{item: item, count: 1}}
      end

      message = Orders.Place.wrap(%{item: "tea", count: 2})
      GenServer.call(server, message)

  `:from` is the oldest version that is understood, by default the present one: `c:migrate/2` has a clause for each but the last.

  The server opens it; what it does not understand it gives back to its caller, and goes on:

      def handle_call(message, _from, state) do
        case Orders.Place.open(message) do
          {:ok, %{item: item, count: count}} -> {:reply, place(item, count), state}
          {:error, _} = refused -> {:reply, refused, state}
        end
      end

  The refusal is `{:error, {:"$tiebeam_version", {tag, version}, got}}`: what is taken, and the `{tag, version}` that came, or `nil`
  if that was no envelope. A Rust caller has it as `CallError::Version`.
  """

  @typedoc "A payload in its envelope."
  @type t :: {:"$tiebeam_message", tag :: String.t(), version :: non_neg_integer, payload :: term}

  @typedoc "Why a message was not understood; what a `c:migrate/2` that fails gives is given on."
  @type refused ::
          {:"$tiebeam_version", expected :: {String.t(), non_neg_integer},
           got :: {String.t(), non_neg_integer} | nil}
          | term

  @doc "Lifts a payload of this version to the next one."
  @callback migrate(version :: non_neg_integer, payload :: term) :: {:ok, term} | {:error, term}

  @optional_callbacks migrate: 2

  defmacro __using__(options) do
    quote bind_quoted: [options: options] do
      @behaviour Tiebeam.Message
      @tiebeam_tag Keyword.fetch!(options, :tag)
      @tiebeam_version Keyword.fetch!(options, :version)
      @tiebeam_versions Keyword.get(options, :from, @tiebeam_version)..@tiebeam_version//1

      is_binary(@tiebeam_tag) || raise ArgumentError, "the option :tag must be a string"

      Enum.min(@tiebeam_versions, fn -> -1 end) >= 0 ||
        raise ArgumentError,
              "the options :from and :version must be integers from 0 on, the first not above the second"

      @doc "The payload in its envelope."
      @spec wrap(term) :: Tiebeam.Message.t()
      def wrap(payload), do: {:"$tiebeam_message", @tiebeam_tag, @tiebeam_version, payload}

      @doc "The payload of a message, lifted to the present version."
      @spec open(term) :: {:ok, term} | {:error, Tiebeam.Message.refused()}
      def open(message), do: Tiebeam.Message.open(message, __MODULE__, @tiebeam_tag, @tiebeam_versions)
    end
  end

  @doc false
  def open({:"$tiebeam_message", tag, version, payload}, module, tag, versions) when is_integer(version) do
    if version in versions,
      do: lift(payload, version, versions.last, module),
      else: refused(tag, versions, {tag, version})
  end

  def open({:"$tiebeam_message", got, version, _payload}, _module, tag, versions)
      when is_binary(got) and is_integer(version),
      do: refused(tag, versions, {got, version})

  def open(_message, _module, tag, versions), do: refused(tag, versions, nil)

  defp lift(payload, last, last, _module), do: {:ok, payload}

  defp lift(payload, version, last, module) do
    with {:ok, lifted} <- module.migrate(version, payload),
         do: lift(lifted, version + 1, last, module)
  end

  defp refused(tag, versions, got), do: {:error, {:"$tiebeam_version", {tag, versions.last}, got}}
end
